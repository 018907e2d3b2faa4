"""Addresses of the customer's window. The customer is part of the address, so that a link names its tenant."""

from django.urls import path

from dashboard.views import budgets, credits, customers, overview, plan, team, theme, top_ups

urlpatterns = [
    path("", customers.home, name="home"),
    path("c/<str:key>/", overview.overview, name="overview"),
    path("c/<str:key>/live", overview.live, name="overview-live"),
    path("c/<str:key>/spend.csv", overview.download, name="overview-csv"),
    path("c/<str:key>/credits", credits.show, name="credits"),
    path("c/<str:key>/credits/live", credits.live, name="credits-live"),
    path("c/<str:key>/credits.csv", credits.download, name="credits-csv"),
    path("c/<str:key>/credits/top-ups", top_ups.show, name="top-ups"),
    path("c/<str:key>/credits/top-ups/card", top_ups.card, name="top-up-card"),
    path("c/<str:key>/credits/top-ups/automatic", top_ups.rule, name="top-up-rule"),
    path("c/<str:key>/credits/top-ups/<id:public_id>", top_ups.one, name="top-up"),
    path("c/<str:key>/credits/top-ups/<id:public_id>/pay", top_ups.pay, name="top-up-pay"),
    path("c/<str:key>/credits/top-ups/<id:public_id>/cancel", top_ups.cancel, name="top-up-cancel"),
    path("c/<str:key>/credits/<id:public_id>", credits.transaction, name="credits-transaction"),
    path("c/<str:key>/plan", plan.show, name="plan"),
    path("c/<str:key>/plan/live", plan.live, name="plan-live"),
    path("c/<str:key>/plan/lines/<path:address>", plan.line, name="plan-line"),
    path("c/<str:key>/event", plan.event, name="event"),
    path("c/<str:key>/budget", budgets.show, name="budget"),
    path("c/<str:key>/budget/edit", budgets.edit, name="budget-edit"),
    path("c/<str:key>/budget/new", budgets.add, name="budget-new"),
    path("c/<str:key>/budget/<id:public_id>/edit", budgets.edit_one, name="budget-edit-one"),
    path("c/<str:key>/budget/<id:public_id>/test", budgets.test, name="budget-test"),
    path("c/<str:key>/budget/<id:public_id>/remove", budgets.archive, name="budget-archive"),
    path("c/<str:key>/team", team.show, name="team"),
    path("c/<str:key>/team/invitations", team.invite, name="team-invite"),
    path("c/<str:key>/team/invitations/<id:public_id>/revoke", team.revoke_invitation, name="team-invitation-revoke"),
    path("c/<str:key>/team/members/<int:member>/role", team.change_role, name="team-role"),
    path("c/<str:key>/team/members/<int:member>/remove", team.remove, name="team-remove"),
    path("c/<str:key>/team/keys", team.create_key, name="team-keys"),
    path("c/<str:key>/team/keys/<id:public_id>/revoke", team.revoke_key, name="team-key-revoke"),
    path("theme", theme.choose, name="theme"),
]
