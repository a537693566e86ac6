"""The tables of backtests: what was run, how it went, and its trades; and of sweeps over many of them."""

from django.db import models

from orders.fields import DecimalField, Sign, UtcDateTimeField, UuidField, not_empty, one_of, utc_now
from orders.lifecycle import Side

STATUSES = ("queued", "running", "done", "failed")
SWEEP_STATUSES = ("running", "done", "failed")


class BacktestRun(models.Model):
    """One backtest, from its request to its result. Ratios are fractions, dates New York sessions.

    Times are the wall clock. Runs of one sweep share `sweep_id`. `account_id` is an account of the run's own. `data` is
    the file or folder of the bars, null for the bar store; `signals` counts them by the risk code that refused them.
    `scenarios` are the same run on other paths inside the bars and at other costs, null if nobody asked. A worker that
    runs it renews `lease_until`; `attempts` counts the workers that began it.
    """

    account_id = models.TextField(db_default="")
    sweep_id = UuidField(null=True)
    strategy = models.TextField()
    symbols = models.JSONField()
    start_date = models.DateField()
    end_date = models.DateField()
    initial_capital = DecimalField(sign=Sign.POSITIVE)
    params = models.JSONField(default=dict)
    data = models.TextField(null=True)
    settings_hash = models.TextField(db_default="")
    status = models.TextField(db_default="queued")
    progress = models.PositiveSmallIntegerField(db_default=0)
    error = models.TextField(db_default="")
    total_return = DecimalField(null=True)
    final_equity = DecimalField(null=True)
    win_rate = DecimalField(null=True, sign=Sign.NOT_NEGATIVE)
    profit_factor = DecimalField(null=True, sign=Sign.NOT_NEGATIVE)
    sharpe_ratio = DecimalField(null=True)
    max_drawdown = DecimalField(null=True, sign=Sign.NOT_NEGATIVE)
    total_trades = models.PositiveIntegerField(null=True)
    metrics = models.JSONField(null=True)
    equity_curve = models.JSONField(null=True)
    signals = models.JSONField(null=True)
    bars = models.PositiveBigIntegerField(null=True)
    rejected_bars = models.PositiveBigIntegerField(null=True)
    data_report = models.JSONField(null=True)
    scenarios = models.JSONField(null=True)
    seconds = models.JSONField(null=True)
    created_by = models.TextField(db_default="")
    created_at = UtcDateTimeField(default=utc_now)
    started_at = UtcDateTimeField(null=True)
    finished_at = UtcDateTimeField(null=True)
    lease_until = UtcDateTimeField(null=True)
    attempts = models.PositiveSmallIntegerField(db_default=0)

    class Meta:
        db_table = "backtest_run"
        verbose_name = "backtest"
        constraints = [
            one_of("backtest_run", "status", STATUSES),
            models.CheckConstraint(condition=models.Q(progress__lte=100), name="backtest_run_progress_percent"),
            models.CheckConstraint(
                condition=models.Q(end_date__gte=models.F("start_date")), name="backtest_run_dates_in_order"
            ),
        ]
        indexes = [
            models.Index(fields=["status"], name="ix_backtest_run_status"),
            models.Index(fields=["sweep_id"], name="ix_backtest_run_sweep"),
        ]

    def __str__(self) -> str:
        return f"{self.strategy} {self.start_date} to {self.end_date}"


class BacktestTrade(models.Model):
    """One round trip of a backtest."""

    run = models.ForeignKey(BacktestRun, on_delete=models.CASCADE, db_index=False, related_name="trades")
    account_id = models.TextField(db_default="")
    correlation_id = models.TextField(db_default="")
    symbol = models.TextField()
    side = models.TextField()
    qty = DecimalField(sign=Sign.POSITIVE)
    entry_price = DecimalField(sign=Sign.POSITIVE)
    exit_price = DecimalField(sign=Sign.POSITIVE)
    entry_at = UtcDateTimeField()
    exit_at = UtcDateTimeField()
    pnl = DecimalField()
    pnl_pct = DecimalField()
    strategy = models.TextField(db_default="")
    duration_seconds = models.PositiveBigIntegerField()
    commission = DecimalField(db_default=0)
    exit_reason = models.TextField()
    initial_stop_price = DecimalField(null=True)
    planned_risk = DecimalField(null=True, sign=Sign.NOT_NEGATIVE)

    class Meta:
        db_table = "backtest_trade"
        constraints = [one_of("backtest_trade", "side", Side), not_empty("backtest_trade", "exit_reason")]
        indexes = [models.Index(fields=["run"], name="ix_backtest_trade_run")]

    def __str__(self) -> str:
        return f"{self.symbol} {self.side} {self.qty}: {self.pnl}"


class BacktestSweep(models.Model):
    """A grid of backtests: what all of them share, and the values of each key that tells them apart.

    `grid` is a list of [key, values], in the order in which its points are counted. `params` are all settings that have
    a say, so that every machine runs the same. `on_cluster` sweeps are shared by workers, which were last told at
    `queued_at`; the others belong to the process that began them, which renews `lease_until`.
    """

    sweep_id = UuidField(unique=True)
    strategy = models.TextField()
    symbols = models.JSONField()
    start_date = models.DateField()
    end_date = models.DateField()
    initial_capital = DecimalField(sign=Sign.POSITIVE)
    params = models.JSONField()
    data = models.TextField(null=True)
    settings_hash = models.TextField(db_default="")
    grid = models.JSONField()
    points = models.PositiveIntegerField()
    on_cluster = models.BooleanField()
    status = models.TextField(db_default="running")
    error = models.TextField(db_default="")
    created_by = models.TextField(db_default="")
    created_at = UtcDateTimeField(default=utc_now)
    queued_at = UtcDateTimeField(null=True)
    lease_until = UtcDateTimeField(null=True)
    finished_at = UtcDateTimeField(null=True)

    class Meta:
        db_table = "backtest_sweep"
        verbose_name = "sweep"
        constraints = [
            one_of("backtest_sweep", "status", SWEEP_STATUSES),
            models.CheckConstraint(condition=models.Q(points__gt=0), name="backtest_sweep_points_positive"),
        ]

    def __str__(self) -> str:
        return f"{self.strategy} {self.start_date} to {self.end_date}, {self.points} points"


class BacktestSweepChunk(models.Model):
    """Points `first` to `end`, the end not included, of a sweep: what one worker takes at a time.

    A worker that runs it holds `token` and renews `lease_until`; when it is over another one may take the chunk.
    """

    sweep = models.ForeignKey(BacktestSweep, on_delete=models.CASCADE, related_name="chunks")
    first = models.PositiveIntegerField()
    end = models.PositiveIntegerField()
    status = models.TextField(db_default="queued")
    token = UuidField(null=True)
    lease_until = UtcDateTimeField(null=True)
    attempts = models.PositiveSmallIntegerField(db_default=0)

    class Meta:
        db_table = "backtest_sweep_chunk"
        verbose_name = "sweep chunk"
        constraints = [
            one_of("backtest_sweep_chunk", "status", STATUSES),
            models.UniqueConstraint(fields=["sweep", "first"], name="ux_backtest_sweep_chunk"),
        ]

    def __str__(self) -> str:
        return f"{self.first} to {self.end} of sweep {self.sweep_id}"


class BacktestSweepPoint(models.Model):
    """The result of one point of a sweep, written once: its metrics, or the error that prevented them.

    `moments` describe the daily returns; `worker` is the host and process that ran it.
    """

    sweep = models.ForeignKey(BacktestSweep, on_delete=models.CASCADE, db_index=False, related_name="results")
    number = models.PositiveIntegerField()
    params = models.JSONField()
    metrics = models.JSONField(null=True)
    moments = models.JSONField(null=True)
    error = models.TextField(db_default="")
    seconds = models.FloatField(db_default=0.0)
    worker = models.TextField(db_default="")
    finished_at = UtcDateTimeField(default=utc_now)

    class Meta:
        db_table = "backtest_sweep_point"
        verbose_name = "sweep point"
        constraints = [models.UniqueConstraint(fields=["sweep", "number"], name="ux_backtest_sweep_point")]

    def __str__(self) -> str:
        return f"point {self.number} of sweep {self.sweep_id}"


class BacktestWalkForward(models.Model):
    """A walk-forward asked for in the browser: the grid, the windows in sessions, and what came of it.

    `progress` is in percent of all backtests, `result` the JSON of the `walkforward` command; it is leased like a run.
    """

    strategy = models.TextField()
    symbols = models.JSONField()
    start_date = models.DateField()
    end_date = models.DateField()
    initial_capital = DecimalField(sign=Sign.POSITIVE)
    params = models.JSONField()
    data = models.TextField(null=True)
    settings_hash = models.TextField(db_default="")
    grid = models.JSONField()
    train_sessions = models.PositiveIntegerField()
    test_sessions = models.PositiveIntegerField()
    is_anchored = models.BooleanField()
    figure = models.TextField()
    status = models.TextField(db_default="queued")
    progress = models.PositiveSmallIntegerField(db_default=0)
    error = models.TextField(db_default="")
    result = models.JSONField(null=True)
    created_by = models.TextField(db_default="")
    created_at = UtcDateTimeField(default=utc_now)
    finished_at = UtcDateTimeField(null=True)
    lease_until = UtcDateTimeField(null=True)
    attempts = models.PositiveSmallIntegerField(db_default=0)

    class Meta:
        db_table = "backtest_walk_forward"
        verbose_name = "walk-forward"
        constraints = [
            one_of("backtest_walk_forward", "status", STATUSES),
            models.CheckConstraint(
                condition=models.Q(train_sessions__gt=0, test_sessions__gt=0), name="backtest_walk_forward_windows"
            ),
        ]

    def __str__(self) -> str:
        return f"{self.strategy} {self.start_date} to {self.end_date}, {self.train_sessions} and {self.test_sessions}"
