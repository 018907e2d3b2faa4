"""People, customers, invitations and keys in the admin. Every change goes through the services."""

from typing import Any

from allauth.account.models import EmailAddress
from allauth.mfa.models import Authenticator
from django import forms
from django.contrib import admin, messages
from django.contrib.auth.admin import GroupAdmin, UserAdmin
from django.contrib.auth.models import Group
from django.core.exceptions import ValidationError
from django.db.models import Count, QuerySet
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.template.response import TemplateResponse
from django.urls import reverse
from django.utils import timezone
from unfold.admin import ModelAdmin, TabularInline
from unfold.decorators import action, display
from unfold.forms import AdminPasswordChangeForm, UserChangeForm, UserCreationForm
from unfold.widgets import UnfoldAdminCheckboxSelectMultipleWidget

from accounts import services
from accounts.admin_pages import Searching, row_or_404
from accounts.models import ApiKey, Customer, Invitation, Membership, Role, Scope, User

# What stands there of other applications: second factors are secrets, addresses are on the person's page.
admin.site.unregister([Authenticator, EmailAddress, Group])


class NeverDeleted(ModelAdmin):
    """Rows that others hang on: they are revoked or switched off."""

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False


@admin.register(Group)
class Groups(GroupAdmin, ModelAdmin):
    """Which operators may do what."""


class NewUserForm(UserCreationForm):
    class Meta:
        model = User
        fields = ["email", "name"]

    def clean_email(self) -> str:
        return str(self.cleaned_data["email"]).lower()


@admin.register(User)
class Users(Searching, UserAdmin, NeverDeleted):
    """People. Members of customers are invited; operators are made here."""

    form = UserChangeForm
    add_form = NewUserForm
    change_password_form = AdminPasswordChangeForm
    ordering = ["email"]
    list_display = ["email", "name", "is_staff", "is_active", "last_login"]
    list_filter = ["is_staff", "is_active"]
    search_fields = ["email", "name"]
    fieldsets = [
        (None, {"fields": ["email", "name", "password", "is_active"]}),
        ("Operator", {"fields": ["is_staff", "is_superuser", "groups"]}),
    ]
    add_fieldsets = [(None, {"fields": ["email", "name", "password1", "password2"]})]
    filter_horizontal = []
    autocomplete_fields = ["groups"]
    readonly_fields = ["last_login"]
    actions_detail = ["remove_second_factor"]

    def has_change_permission(self, request: HttpRequest, obj: User | str | None = None) -> bool:
        """Only superusers change other operators: a new password for one would lend their rights. unfold asks with an
        id."""
        person = self.get_object(request, obj) if isinstance(obj, str) else obj
        if not super().has_change_permission(request, person):
            return False
        operator = _operator(request)
        return person in (None, operator) or operator.is_superuser or not (person.is_staff or person.is_superuser)

    def get_readonly_fields(self, request: HttpRequest, obj: User | None = None) -> list[str]:
        """Nobody gives others, or themselves, rights that they have not: only superusers make operators."""
        if _operator(request).is_superuser:
            return self.readonly_fields
        return [*self.readonly_fields, "is_staff", "is_superuser", "groups"]

    @action(
        description="Remove the second factor",
        permissions=["change"],
        dialog={
            "title": "Remove the second factor?",
            "description": "For somebody who lost it. Make sure that it is them: the password alone opens the door.",
            "form_submit_text": "Remove",
        },
    )
    def remove_second_factor(self, request: HttpRequest, form: forms.Form, object_id: str) -> HttpResponse:
        person = row_or_404(self, request, object_id)
        Authenticator.objects.filter(user=person).delete()
        self.log_change(request, person, "Removed the second factor.")
        messages.success(request, "The second factor is removed.")
        return _to("user", object_id)


class MembershipInline(TabularInline):
    """Members join by invitation; here their role changes, or they go."""

    model = Membership
    fields = ["user", "role", "created_at"]
    readonly_fields = ["user", "created_at"]
    extra = 0

    def has_add_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False


@admin.register(Customer)
class Customers(NeverDeleted):
    """A customer and its members. Key and currency stay: usage and money count on them."""

    list_display = ["key", "name", "currency", "timezone", "members", "created_at"]
    search_fields = ["key", "name", "email"]
    fields = ["key", "name", "currency", "timezone", "email"]
    inlines = [MembershipInline]
    actions_detail = ["invite"]

    def get_queryset(self, request: HttpRequest) -> "QuerySet[Customer]":
        customers: QuerySet[Customer] = super().get_queryset(request).annotate(members=Count("memberships"))
        return customers

    def view_on_site(self, obj: Customer) -> str:
        """The customer's own page, as a visitor."""
        return reverse("overview", args=[obj.key])

    @display(ordering="members")
    def members(self, customer: Any) -> int:
        return int(customer.members)

    def get_readonly_fields(self, request: HttpRequest, obj: Customer | None = None) -> list[str]:
        return ["key", "currency"] if obj else []

    def save_model(self, request: HttpRequest, obj: Customer, form: Any, change: bool) -> None:
        if change:
            services.update_customer(
                customer=obj, at=timezone.now(), **{name: form.cleaned_data[name] for name in form.changed_data}
            )
        else:
            obj.pk = services.create_customer(**form.cleaned_data, at=timezone.now()).pk

    def save_formset(self, request: HttpRequest, form: Any, formset: Any, change: bool) -> None:
        """New owners first, so that an old one may go with the same click."""
        formset.save(commit=False)
        changed = sorted(
            (member for member, _ in formset.changed_objects), key=lambda member: member.role != Role.OWNER
        )
        for member in changed:
            _or_say_why(request, services.change_role, membership=member, role=Role(member.role))
        for member in formset.deleted_objects:
            _or_say_why(request, services.remove_member, membership=member)

    @action(description="Invite somebody", permissions=["change"], icon="person_add")
    def invite(self, request: HttpRequest, object_id: str) -> HttpResponse:
        return redirect(reverse("admin:accounts_invitation_add", query={"customer": object_id}))


class InvitationForm(forms.ModelForm):
    class Meta:
        model = Invitation
        fields = ["customer", "email", "role"]

    def clean(self) -> dict[str, Any]:
        fields = super().clean() or {}
        if not self.errors:
            services.check_invitation(customer=fields["customer"], email=fields["email"])
        return fields

    def validate_constraints(self) -> None:
        """An open invitation of the same address is no obstacle: the new one replaces it."""


@admin.register(Invitation)
class Invitations(Searching, NeverDeleted):
    """Offers of a membership. The mail goes out by itself; the link is in it alone."""

    form = InvitationForm
    list_display = ["email", "customer", "role", "state", "invited_by", "created_at", "expires_at"]
    list_filter = ["role"]
    list_select_related = ["customer", "invited_by"]
    search_fields = ["email", "customer__key", "customer__name"]
    fields = ["customer", "email", "role"]
    autocomplete_fields = ["customer"]
    actions_detail = ["revoke"]

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    @display(label={"Open": "info", "Accepted": "success", "Revoked": "danger", "Expired": "warning"})
    def state(self, invitation: Invitation) -> str:
        if invitation.accepted_at:
            return "Accepted"
        if invitation.revoked_at:
            return "Revoked"
        return "Open" if invitation.is_open(timezone.now()) else "Expired"

    def save_model(self, request: HttpRequest, obj: Invitation, form: Any, change: bool) -> None:
        obj.pk = services.invite(**form.cleaned_data, invited_by=_operator(request), at=timezone.now()).pk

    def has_revoke_permission(self, request: HttpRequest, object_id: str | None = None) -> bool:
        """Named here: unfold's check of a permission's own name asks the database, which may be empty still."""
        return _operator(request).has_perm("accounts.change_invitation")

    @action(
        description="Revoke",
        permissions=["revoke"],
        dialog={
            "title": "Revoke this invitation?",
            "description": "Its link stops working. Who has accepted stays a member.",
            "form_submit_text": "Revoke",
        },
    )
    def revoke(self, request: HttpRequest, form: forms.Form, object_id: str) -> HttpResponse:
        invitation = row_or_404(self, request, object_id)
        services.revoke_invitation(invitation=invitation, at=timezone.now())
        self.log_change(request, invitation, "Revoked.")
        messages.success(request, "The invitation is revoked.")
        return _to("invitation", object_id)


class ApiKeyForm(forms.ModelForm):
    scopes = forms.TypedMultipleChoiceField(
        choices=Scope.choices,
        coerce=Scope,
        required=False,
        widget=UnfoldAdminCheckboxSelectMultipleWidget,
        help_text="Of an operator key. A customer's key has none: it reads everything of its customer.",
    )

    class Meta:
        model = ApiKey
        fields = ["name", "scopes", "customer", "expires_at"]

    def clean(self) -> dict[str, Any]:
        fields = super().clean() or {}
        if not self.errors:
            asked = {name: fields[name] for name in ("scopes", "customer", "expires_at")}
            services.check_api_key(**asked, at=timezone.now())
        return fields


@admin.register(ApiKey)
class ApiKeys(Searching, NeverDeleted):
    """Keys of programs. A key is shown once, when it is created; afterwards it can only be revoked."""

    form = ApiKeyForm
    list_display = ["name", "prefix", "owner", "granted", "state", "last_used_at", "expires_at", "created_by"]
    list_filter = [("revoked_at", admin.EmptyFieldListFilter), "customer"]
    list_select_related = ["customer", "created_by"]
    search_fields = ["name", "prefix", "customer__key"]
    autocomplete_fields = ["customer"]
    actions_detail = ["revoke"]

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def get_fields(self, request: HttpRequest, obj: ApiKey | None = None) -> list[str]:
        asked = ["name", "scopes", "customer", "expires_at"]
        return [*asked, "prefix", "created_by", "created_at", "last_used_at", "revoked_at"] if obj else asked

    @display(description="of", empty_value="operator")
    def owner(self, key: ApiKey) -> str | None:
        return key.customer.key if key.customer else None

    @display(description="scopes")
    def granted(self, key: ApiKey) -> str:
        return ", ".join(key.scopes)

    @display(label={"Valid": "success", "Revoked": "danger", "Expired": "warning"})
    def state(self, key: ApiKey) -> str:
        if key.revoked_at:
            return "Revoked"
        return "Expired" if key.expires_at and key.expires_at <= timezone.now() else "Valid"

    def save_model(self, request: HttpRequest, obj: Any, form: Any, change: bool) -> None:
        operator = _operator(request)
        key, secret = services.create_api_key(**form.cleaned_data, created_by=operator, at=timezone.now())
        obj.pk, obj.prefix, obj.secret = key.pk, key.prefix, secret

    def response_add(self, request: HttpRequest, obj: Any, post_url_continue: str | None = None) -> HttpResponse:
        """The secret is in this answer and nowhere else: not in a message, a session or a log."""
        context = {
            **self.admin_site.each_context(request),
            "title": "Copy the key",
            "key": obj,
            "secret": obj.secret,
            "list_url": reverse("admin:accounts_apikey_changelist"),
        }
        return TemplateResponse(request, "admin/accounts/api_key_created.html", context)

    def has_revoke_permission(self, request: HttpRequest, object_id: str | None = None) -> bool:
        """Named here: unfold's check of a permission's own name asks the database, which may be empty still."""
        return _operator(request).has_perm("accounts.change_apikey")

    @action(
        description="Revoke",
        permissions=["revoke"],
        dialog={
            "title": "Revoke this key?",
            "description": "It stops working with its next request. This cannot be undone.",
            "form_submit_text": "Revoke",
        },
    )
    def revoke(self, request: HttpRequest, form: forms.Form, object_id: str) -> HttpResponse:
        key = row_or_404(self, request, object_id)
        services.revoke_api_key(key=key, at=timezone.now())
        self.log_change(request, key, "Revoked.")
        messages.success(request, f"{key} is revoked.")
        return _to("apikey", object_id)


def _operator(request: HttpRequest) -> User:
    assert isinstance(request.user, User)
    return request.user


def _or_say_why(request: HttpRequest, service: Any, **arguments: Any) -> None:
    try:
        service(**arguments, at=timezone.now())
    except ValidationError as refusal:
        messages.error(request, " ".join(refusal.messages))


def _to(model: str, object_id: str) -> HttpResponse:
    """A dialog is an htmx form, so the way on is a header."""
    return HttpResponse(headers={"HX-Redirect": reverse(f"admin:accounts_{model}_change", args=[object_id])})
