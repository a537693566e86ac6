"""A market that replays bars from files, session after session, and ends with them."""

import hashlib
from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import structlog

from trading.columns import BarColumns
from trading.live import calendar
from trading.live.barfiles import BarFileError, ReadReport, find_bar_files, read_bar_file
from trading.market import Bar, Session

log = structlog.get_logger("market")

REJECTED_ROWS_SHOWN = 20


class RecordedBars:
    """The given symbols from `start_date` to `end_date` (New York dates, both included); earlier bars are history.

    Raises BarFileError when no session between the dates has a bar.
    """

    is_endless = False

    def __init__(
        self,
        columns: Mapping[str, BarColumns],
        *,
        start_date: date | None = None,
        end_date: date | None = None,
        description: str = "recorded bars",
    ) -> None:
        self.symbols = tuple(columns)
        self._columns = dict(columns)
        self._all = [session for session in self._calendar() if self._has_bars(session)]
        self._played = [
            session
            for session in self._all
            if (start_date is None or session.date >= start_date) and (end_date is None or session.date <= end_date)
        ]
        if not self._played:
            span = f"{self._all[0].date} to {self._all[-1].date}" if self._all else "none at all"
            raise BarFileError(f"no bar of {', '.join(self.symbols)} between the dates; there are: {span}")
        self.first = self._played[0].open
        self.description = f"{description}, {self._played[0].date} to {self._played[-1].date}, {self._fingerprint()}"

    def knows(self, symbol: str) -> bool:
        """Whether there are bars of the symbol."""
        return symbol in self._columns

    def sessions(self, start: date, end: date) -> list[Session]:
        """The sessions with bars from `start` to `end`, both included, up to the end of the replay."""
        last = self._played[-1].date
        return [session for session in self._all if start <= session.date <= min(end, last)]

    def next_session(self, after: datetime) -> Session | None:
        """The first session to be played that opens later than `after`, None at the end."""
        return next((session for session in self._played if session.open > after), None)

    def session_bars(self, symbol: str, session: Session) -> Sequence[Bar]:
        """The bars of one session, in order of time."""
        columns = self._columns[symbol]
        return columns.bars(columns.index_at(session.open), columns.index_at(session.close))

    def _calendar(self) -> list[Session]:
        stamps = [columns.timestamps for columns in self._columns.values() if len(columns)]
        if not stamps:
            return []
        first, last = min(int(each[0]) for each in stamps), max(int(each[-1]) for each in stamps)
        first_date = (datetime.fromtimestamp(first, UTC) - timedelta(days=1)).date()
        last_date = datetime.fromtimestamp(last, UTC).date()
        try:
            return calendar.sessions(first_date, last_date)
        except calendar.OutsideCalendar as error:
            raise BarFileError(str(error)) from error

    def _has_bars(self, session: Session) -> bool:
        return any(each.index_at(session.open) < each.index_at(session.close) for each in self._columns.values())

    def _fingerprint(self) -> str:
        """Tells other bars of the same names and dates apart."""
        digest = hashlib.sha256()
        for symbol, columns in self._columns.items():
            digest.update(symbol.encode())
            digest.update(columns.timestamps.tobytes() + columns.close.tobytes())
        return digest.hexdigest()[:12]


def read_recorded_bars(
    path: Path, *, symbols: Sequence[str] = (), start_date: date | None = None, end_date: date | None = None
) -> tuple[RecordedBars, list[ReadReport]]:
    """The bars of a file or folder, ready for replay, and what was left out. Raises BarFileError."""
    columns: dict[str, BarColumns] = {}
    reports = []
    for symbol, file in find_bar_files(path, symbols).items():
        columns[symbol], report = read_bar_file(file, symbol)
        reports.append(report)
        _log_report(report)
    bars = RecordedBars(columns, start_date=start_date, end_date=end_date, description=str(path.resolve()))
    return bars, reports


def _log_report(report: ReadReport) -> None:
    found = log.warning if report.faults else log.info
    found(
        "bars.read",
        file=str(report.path),
        rows=report.rows,
        rejected=len(report.rejected),
        rounded_prices=report.rounded,
        duplicates=len(report.repeated),
    )
    for row in report.rejected[:REJECTED_ROWS_SHOWN]:
        log.warning("bars.row_rejected", file=str(report.path), line=row.line, reason=row.reason)
