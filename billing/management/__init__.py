"""Commands of the core. One of them acts as a vendor's backend does, with the client that vendors install.

The client is a package of its own and cannot be pinned by hash from a folder, so it is found where it lies.
"""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parent.parent.parent / "clients" / "python" / "src"))
