"""Addresses of the pages."""

from django.conf import settings
from django.contrib.auth.views import LogoutView
from django.urls import path
from django.views.generic import RedirectView

from dashboard import backtest_views, start_views, views, walk_views

urlpatterns = [
    path("", views.desk, name="dashboard"),
    path("replay/", start_views.replay_day, name="replay"),
    path("start/", start_views.start, name="start"),
    path("orders/", views.orders, name="orders"),
    path("orders/<uuid:local_id>/", views.order, name="order"),
    path("trades/", views.trades, name="trades"),
    path("trades/<uuid:trade_id>/", views.trade, name="trade"),
    path("trades.csv", views.trades_csv, name="trades-csv"),
    path("backtests/", views.backtests, name="backtests"),
    path("backtests/new/", backtest_views.new_backtest, name="backtest-new"),
    path("backtests/compare/", backtest_views.compare, name="backtest-compare"),
    path("backtests/<int:run_id>/", views.backtest, name="backtest"),
    path("backtests/<int:run_id>/progress/", backtest_views.backtest_progress, name="backtest-progress"),
    path("backtests/<int:run_id>/montecarlo/", backtest_views.monte_carlo, name="monte-carlo"),
    path("sweeps/", backtest_views.sweeps, name="sweeps"),
    path("sweeps/new/", backtest_views.new_sweep, name="sweep-new"),
    path("walkforwards/", walk_views.walks, name="walks"),
    path("walkforwards/<int:walk_id>/", walk_views.walk, name="walk"),
    path("walkforwards/<int:walk_id>/progress/", walk_views.walk_progress, name="walk-progress"),
    path("sweeps/<int:sweep_id>/", backtest_views.sweep, name="sweep"),
    path("sweeps/<int:sweep_id>/progress/", backtest_views.sweep_progress, name="sweep-progress"),
    path("login/", views.SignIn.as_view(), name="login"),
    path("favicon.ico", RedirectView.as_view(url=f"{settings.STATIC_URL}img/mark.svg")),
    path("logout/", LogoutView.as_view(), name="logout"),
]
