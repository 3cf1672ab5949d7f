"""How `suffice serve` writes the messages of its loggers (`suffice.serve.…`, uvicorn's, and warnings of anyone else) to
standard error. A program that embeds `open_service` configures logging itself and does not call this."""

from __future__ import annotations

import json
import logging
from datetime import UTC, datetime

__all__ = ["FORMATS", "LEVELS", "JsonFormatter", "TextFormatter", "set_up_logging"]

LEVELS = ("debug", "info", "warning", "error")
FORMATS = ("text", "json")
_STANDARD = {*vars(logging.makeLogRecord({})), "message", "asctime", "prefix", "color_message", "taskName"}


class TextFormatter(logging.Formatter):
    """`warning: the database is away`: without time and logger, which journals and containers add or show."""

    def format(self, record: logging.LogRecord) -> str:
        word = "notice" if record.levelname == "INFO" else record.levelname.lower()
        return f"{getattr(record, 'prefix', f'{word}: ')}{super().format(record)}"


class JsonFormatter(logging.Formatter):
    """An object on one line: time (UTC), level, logger, message, what the message carries as `extra`, traceback."""

    def format(self, record: logging.LogRecord) -> str:
        said = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **{name: value for name, value in vars(record).items() if name not in _STANDARD},
        }
        if record.exc_info:
            said["exception"] = self.formatException(record.exc_info)
        return json.dumps(said, ensure_ascii=False, default=str)


def set_up_logging(level: str, form: str) -> None:
    """Write messages of at least this level to standard error.

    uvicorn's notes about its start and end repeat ours and are shown at `debug`; of other libraries, warnings are.
    """
    handler = logging.StreamHandler()
    handler.setFormatter(JsonFormatter() if form == "json" else TextFormatter())
    least = logging.getLevelName(level.upper())
    root = logging.getLogger()
    root.addHandler(handler)
    root.setLevel(max(least, logging.WARNING))
    logging.getLogger("suffice").setLevel(least)
    logging.getLogger("uvicorn").setLevel(least if least == logging.DEBUG else max(least, logging.WARNING))
