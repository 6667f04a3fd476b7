"""The command line: `easel COMMAND …`. A command's module is imported when it is chosen, and not before.

    easel chat
    easel draw "a red fox in the snow" -o fox.png --seed 7

Every command's module has `add_arguments(parser)` and `run(args)`, which returns a dict of results, an exit status, or
both.
Where one module holds several commands, both take the command's last word as well.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any


@dataclass(frozen=True)
class Command:
    module: str
    help: str
    shared: bool = False  # the module holds several commands
    configured: bool = False  # settings come from a file and the environment too, see config.py


COMMANDS = {
    "chat": Command("app.commands.chat", "the browser app, and the HTTP API beside it", configured=True),
    "config": Command("app.commands.config", "the settings of `easel chat`, and where they come from", configured=True),
    "draw": Command("app.commands.draw", "draw one prompt into a PNG file"),
    "replay": Command("app.commands.replay", "draw a picture again from its PNG, and compare every pixel"),
    "doctor": Command("app.commands.doctor", "is this machine ready, and if not, what is to do?"),
    "users add": Command("app.commands.users", "somebody who may sign in; with the first, the page asks for it", True),
    "users list": Command("app.commands.users", "who may sign in, and what they have", True),
    "users password": Command("app.commands.users", "a new password; all sessions of the user end", True),
    "users limit": Command("app.commands.users", "a user's turns a minute, and room for pictures", True),
    "users key": Command("app.commands.users", "an API key for a user's programs", True),
    "users remove": Command("app.commands.users", "a user, with all that is theirs", True),
    "export": Command("app.commands.exchange", "conversations as a ZIP with JSON, Markdown, HTML and pictures", True),
    "import": Command("app.commands.exchange", "conversations from such a ZIP", True),
    "store check": Command("app.commands.store", "is the data folder whole, and what in it does nobody need?", True),
    "store collect": Command("app.commands.store", "remove pictures that nobody shows", True),
    "store backup": Command("app.commands.store", "a copy of the data folder, while the app runs", True),
    "store restore": Command("app.commands.store", "a data folder from such a copy", True),
    "data pictures": Command("app.commands.data", "rendered, captioned pictures that the image models train on", True),
    "data recaption": Command("app.commands.data", "pictures' captions, rewritten as the dialog model's prompts", True),
    "data o": Command("app.commands.data", "D_o: questions, looking at pictures, talk", True),
    "data p": Command("app.commands.data", "D_p: requests and refined prompts", True),
    "data pm": Command("app.commands.data", "D_pm: single turns joined into dialogues that change topic", True),
    "data tt": Command("app.commands.data", "D_tt: dialogues of drawing and editing", True),
    "data c": Command("app.commands.data", "D_c: chains of changes, the pictures left out", True),
    "data n": Command("app.commands.data", "D_n: talk and declined changes that come near a request", True),
    "data mix": Command("app.commands.data", "D = D_o + D_p + D_pm + D_tt", True),
    "data errors": Command("app.commands.data_errors", "D_e: the dialog model's errors, corrected, and pairs of them"),
    "data feedback": Command("app.commands.data_feedback", "D_f: the chat's ratings, as corrections and pairs"),
    "data filter": Command("app.commands.data", "of a data set a quality tier, or a choice without rare edits", True),
    "data compare": Command(
        "dialog_mllm.comparison", "two models' `eval dialog --turns`: which is better, and at what"
    ),
    "data import": Command("app.commands.data", "D_o of public instruction sets, by name or from files", True),
    "data written": Command("app.commands.data", "D_w: conversations that were written by hand", True),
    "data check": Command("app.commands.data", "does a data set keep every rule?", True),
    "data report": Command("app.commands.data", "what is in a data set, and dialogues to read, as one HTML page", True),
    "data export": Command("app.commands.data", "a data set as TRL, LLaMA-Factory, ms-swift or axolotl read it", True),
    "train vae": Command("app.commands.train", "the generator's VAE", True),
    "train preview": Command("app.commands.train", "the small decoder of previews", True),
    "train clip": Command("app.commands.train", "the bilingual CLIP pair, whose text tower conditions the DiT", True),
    "train dit": Command("app.commands.train", "the denoiser, with its T5 encoder", True),
    "train inspector": Command("app.commands.train", "the recogniser that measures pictures", True),
    "train mllm": Command("dialog_mllm.training", "the dialog model's tokenizer and base"),
    "finetune": Command("dialog_mllm.finetune", "LoRA on the dialog model"),
    "convert dialoggen": Command("dialog_mllm.convert", "DialogGen's released weights, as vLLM loads them"),
    "prefer": Command("dialog_mllm.preferences", "LoRA on the dialog model, from pairs of a better and a worse reply"),
    "merge": Command("dialog_mllm.merging", "the dialog model and its LoRA, or two of its trainings, as one model"),
    "eval dialog": Command("app.commands.eval_dialog", "draw or talk, and the refined prompts, on held-out dialogues"),
    "eval image": Command("app.commands.eval_image", "are the things asked for in the pictures?"),
    "eval edit": Command("app.commands.eval_edit", "do edits change what was asked, and nothing else?"),
    "eval chat": Command("app.evaluation", "whole dialogues through the running app"),
    "bench dialog": Command(
        "app.commands.bench_dialog", "the dialog model through vLLM: first token, crowd, prefix cache"
    ),
    "bench load": Command(
        "app.commands.bench_load", "many users at once through the HTTP API: errors, mix-ups, waits, memory"
    ),
    "adapters list": Command("app.commands.adapters", "the dialog model's adapters, and which of them is active", True),
    "adapters add": Command("app.commands.adapters", "one more, from a PEFT folder", True),
    "adapters activate": Command("app.commands.adapters", "have the chat answer with it; a running app follows", True),
    "adapters rollback": Command("app.commands.adapters", "return to the one that was active before", True),
    "adapters try": Command(
        "app.commands.adapters", "let a share of the conversations have it, beside the active one", True
    ),
    "adapters stop": Command("app.commands.adapters", "end that; the active one answers everybody", True),
    "adapters remove": Command("app.commands.adapters", "throw one out", True),
    "bench dit": Command("generator.bench", "our denoiser and engine against diffusers' pipeline, same weights"),
}


def main(argv: Sequence[str] | None = None) -> int:
    arguments = list(sys.argv[1:] if argv is None else argv)
    if not arguments or arguments[0] in ("-h", "--help"):
        print(_overview(""))
        return 0 if arguments else 2
    group = arguments[0]
    if group in {name.split()[0] for name in COMMANDS if " " in name}:
        if len(arguments) == 1 or arguments[1] in ("-h", "--help"):
            print(_overview(group))
            return 0 if len(arguments) > 1 else 2
        name, rest = f"{group} {arguments[1]}", arguments[2:]
    else:
        name, rest = group, arguments[1:]
    command = COMMANDS.get(name)
    if command is None:
        known = group if name != group else ""
        print(f"easel: there is no command {name!r}.\n\n{_overview(known)}", file=sys.stderr)
        return 2
    return _run(name, command, rest)


def _run(name: str, command: Command, arguments: list[str]) -> int:
    from app import config
    from app.errors import EaselError
    from dialog_mllm.errors import DialogError
    from dialog_mllm.records import DataError
    from generator.errors import GeneratorError

    module = import_module(command.module)
    which = (name.split()[-1],) if command.shared else ()
    parser = argparse.ArgumentParser(prog=f"easel {name}", description=command.help, allow_abbrev=False)
    module.add_arguments(parser, *which)
    with contextlib.suppress(argparse.ArgumentError):  # some commands have one of their own
        parser.add_argument("--json", action="store_true", help="print the result as one JSON object, as the last line")
    try:
        args = config.parse(parser, arguments) if command.configured else parser.parse_args(arguments)
        result = module.run(args, *which)
    except (EaselError, DialogError, GeneratorError, DataError) as error:
        print(f"easel {name}: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"\neasel {name}: stopped.", file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader, such as `head`, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    results, status = result if isinstance(result, tuple) else (result, 0)
    if isinstance(results, dict):
        _report(results, args.json)
        return status
    return int(results or 0)


def _report(result: dict[str, Any], as_json: bool) -> None:
    if as_json:
        print(json.dumps(result, ensure_ascii=False))
        return
    width = max(len(key) for key in result)
    for key, value in result.items():
        print(f"{key:{width}}  {json.dumps(value, ensure_ascii=False) if isinstance(value, dict | list) else value}")


def _overview(group: str) -> str:
    names = [name for name in COMMANDS if not group or name.split()[0] == group]
    width = max(len(name) for name in names)
    lines = [f"  easel {name:{width}}  {COMMANDS[name].help}" for name in names]
    title = f"usage: easel {group + ' ' if group else ''}COMMAND …    (easel COMMAND --help says more)"
    return "\n".join([title, "", *lines])


if __name__ == "__main__":
    raise SystemExit(main())
