"""`easel chat`: the app.

easel chat --port 7860 --data-dir DIR --profile storybook
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

from app.config import add_database
from app.logs import FORMATS, LEVELS, set_up


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--port", type=_port, default=7860, help="(%(default)s)")
    parser.add_argument("--host", default="127.0.0.1", help="who may connect; (%(default)s: this machine alone)")
    parser.add_argument(
        "--data-dir", type=Path, help="where conversations are kept (~/.local/share/easel, or $EASEL_DATA)"
    )
    add_database(parser)
    parser.add_argument("--profile", default="storybook", help="storybook, hunyuan, or a .toml file (%(default)s)")
    parser.add_argument(
        "--api-key-env",
        metavar="VAR",
        help="environment variable with the key that programs must send to /v1, /mcp and /metrics; several keys are"
        " separated by spaces (without it, only programs on this machine are answered). It does not lock the page:"
        " `easel users add` does",
    )
    parser.add_argument(
        "--allow-host",
        action="append",
        default=[],
        metavar="NAME",
        help="a name that this server is reached by, such as a proxy's; addresses and localhost always work",
    )
    parser.add_argument(
        "--allow-origin",
        action="append",
        default=[],
        metavar="URL",
        help="a site whose pages may use the API from a browser, such as https://chat.example",
    )
    parser.add_argument(
        "--filter", type=Path, metavar="FILE",
        help="words, phrases and /regular expressions/, one a line, that may neither be said nor drawn",
    )  # fmt: skip
    parser.add_argument(
        "--filter-url", default="", metavar="URL",
        help="an endpoint of OpenAI's moderation protocol that is asked about every message and prompt",
    )  # fmt: skip
    parser.add_argument("--filter-key-env", default="", metavar="VAR", help="environment variable with its key")
    parser.add_argument("--log-format", choices=FORMATS, default="text", help="(%(default)s)")
    parser.add_argument("--log-level", choices=LEVELS, default="info", help="(%(default)s)")
    parser.add_argument(
        "--stop-timeout", type=_seconds, default=5.0, metavar="SECONDS",
        help="how long turns under way may go on when Easel is stopped (%(default)g); the others can be retried",
    )  # fmt: skip
    parser.add_argument("--mllm-url", help="an OpenAI-compatible server with the dialog model, instead of our own vLLM")
    parser.add_argument("--mllm-key", default="", help="its API key")
    parser.add_argument("--mllm-model", help="the model's name there")


def run(args: argparse.Namespace) -> int:
    from app.profiles import load_profile

    profile = load_profile(args.profile)
    if args.mllm_url:
        profile = replace(
            profile, mllm_url=args.mllm_url, mllm_key=args.mllm_key, dialog=args.mllm_model or profile.dialog
        )
    from app.database import SQLITE
    from app.filters import read_filters
    from app.quick import quick_imports
    from app.store import default_data_dir

    with quick_imports():
        from app.guard import read_access
        from app.serve import serve

    access = read_access(args.api_key_env, args.allow_host, args.allow_origin)
    filters = read_filters(args.filter, args.filter_url, args.filter_key_env)
    set_up(args.log_format, args.log_level)
    data_dir = (args.data_dir or default_data_dir()).expanduser()
    database = args.database or SQLITE
    return serve(profile, args.host, args.port, data_dir, access, filters, args.stop_timeout, database)


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds <= 3600:
        raise argparse.ArgumentTypeError(f"{text!r} is no time; choose 0 to 3600 seconds")
    return seconds


def _port(text: str) -> int:
    port = int(text) if text.isdecimal() else -1
    if not 0 <= port <= 65535:
        raise argparse.ArgumentTypeError(f"{text!r} is no port; choose 1 to 65535, or 0 for any free one")
    return port
