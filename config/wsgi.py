"""WSGI entry point."""

import gc
import os

from django.core.wsgi import get_wsgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings")
application = get_wsgi_application()

# A batch makes tens of thousands of objects that hardly outlive it and hold no cycles: with the defaults the collector
# takes a fifth of its time to look at them, and at all that was loaded at the start, which stays.
gc.freeze()
gc.set_threshold(50_000, 10, 10)
