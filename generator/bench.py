"""`easel bench dit`: our denoiser against diffusers' pipeline, on the same weights, in one run.

    easel bench dit --json

Machines differ and are noisy, so only ratios count: the contestants alternate, round by round, and a ratio is the
median over the rounds, with the quartiles beside it. First it is shown that both give the same. Both compute in
float32; the engine, which is compared with itself alone, in what it computes in for users.
"""

from __future__ import annotations

import argparse
import math
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from generator.request import DrawRequest

FOLDER = Path(__file__).parent / "weights" / "storybook"
PROMPT = "A red fox with a blue scarf stands in the middle of the snow at night, in flat style."
STEPS, GUIDANCE = 10, 3.0  # as the app draws
TOKENS = (64, 256)  # of the pictures whose steps are compared; those drawn at once have the fewer
CROWDS = (1, 2, 4, 8, 16)  # drawings submitted at once

Times = dict[str, list[float]]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--folder", type=Path, default=FOLDER, help="a model in the diffusers layout (the bundled one)")
    parser.add_argument("--rounds", type=int, default=15, help="of each comparison (%(default)s)")
    parser.add_argument("--full-size", action="store_true", help="1.5 B random parameters at 1024x1024, on a GPU")
    parser.add_argument("--threads", type=int, help="of torch (default: its own choice)")


def run(args: argparse.Namespace) -> dict[str, Any]:
    import torch

    from generator.engine import Engine
    from generator.pipeline import load_pipeline
    from generator.precision import usual

    if args.full_size:
        from generator import bench_full_size

        return bench_full_size.run(max(3, args.rounds // 3))
    if args.threads:
        torch.set_num_threads(args.threads)
    shipped = usual("cpu")
    result: dict[str, Any] = {"threads": torch.get_num_threads(), "rounds": args.rounds, "engine": str(shipped)}
    with Engine(lambda: load_pipeline(args.folder, dtype=shipped)) as engine:  # its worker does all the work: see there
        ours, theirs = engine.call(lambda: (load_pipeline(args.folder), diffusers_pipeline(args.folder)))
        say("one step")
        result |= engine.call(lambda: compare_steps(ours, theirs, args.rounds))
        say("whole pictures")
        few = max(3, args.rounds // 3)
        sides = {"": ours.native, f"_{TOKENS[0]}": side_of(ours, TOKENS[0])}
        for suffix, side in sides.items():
            compared = engine.call(partial(compare_pictures, ours, theirs, side, few))
            result |= {f"{name}{suffix}": value for name, value in compared.items()}
        say("edits")
        result |= edit_cost(engine, few)
        say("drawings at once")
        return result | throughput(engine, side_of(ours, TOKENS[0]), max(2, args.rounds // 3))


def say(what: str) -> None:
    print(f"{what} …", file=sys.stderr, flush=True)


def alternate(contestants: dict[str, Callable[[], object]], rounds: int) -> Times:
    """Seconds of each, once per round; the order turns, so that nobody always follows the same one."""
    names = list(contestants)
    times: Times = {name: [] for name in names}
    for name in names:
        contestants[name]()  # warm
    for i in range(rounds):
        for name in names[i % len(names) :] + names[: i % len(names)]:
            started = time.perf_counter()
            contestants[name]()
            times[name].append(time.perf_counter() - started)
    return times


def ratio(name: str, slow: Sequence[float], fast: Sequence[float]) -> dict[str, Any]:
    """How many times as long the slow one takes: the median over the rounds, and its quartiles."""
    ratios = [a / b for a, b in zip(slow, fast, strict=True)]
    low, middle, high = statistics.quantiles(ratios, n=4) if len(ratios) > 1 else 3 * ratios
    return {name: round(middle, 3), f"{name}_quartiles": [round(low, 3), round(high, 3)]}


def diffusers_pipeline(folder: Path) -> Any:
    """diffusers' own, with its DPM-Solver++ for our "dpmpp"."""
    from diffusers import DPMSolverMultistepScheduler, HunyuanDiTPipeline

    pipeline = HunyuanDiTPipeline.from_pretrained(
        folder, safety_checker=None, feature_extractor=None, requires_safety_checker=False, local_files_only=True
    )
    pipeline.scheduler = DPMSolverMultistepScheduler.from_config(
        pipeline.scheduler.config, algorithm_type="dpmsolver++", solver_order=2, timestep_spacing="leading"
    )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


# --- one step


def side_of(pipeline: Any, tokens: int) -> int:
    """Of a square picture of so many tokens, in pixels."""
    return int(math.isqrt(tokens) * pipeline.dit.config.patch_size * pipeline.vae_factor)


def compare_steps(ours: Any, theirs: Any, rounds: int) -> dict[str, Any]:
    """Evaluations with guidance, of one picture of each size."""
    import torch

    contestants: dict[str, Callable[[], Any]] = {}
    parity = 0.0
    for tokens in TOKENS:
        side = side_of(ours, tokens)
        canvas = ours.begin(DrawRequest(PROMPT, size=(side, side), steps=STEPS, guidance=GUIDANCE))
        own, other = own_step(ours, canvas), diffusers_step(ours, theirs, canvas)
        contestants |= {f"ours {tokens}": own, f"theirs {tokens}": other}
        with torch.inference_mode():
            parity = max(parity, float((own() - other()).abs().max()))
    times = alternate(contestants, rounds)
    result: dict[str, Any] = {"parity": parity}
    for tokens in TOKENS:
        own_times = times[f"ours {tokens}"]
        result |= ratio(f"step_ratio_{tokens}", times[f"theirs {tokens}"], own_times)
        result[f"step_ms_{tokens}"] = round(1000 * statistics.median(own_times), 1)
    return result


def own_step(pipeline: Any, canvas: Any) -> Callable[[], Any]:
    import torch

    def step() -> Any:
        with torch.inference_mode():
            return pipeline.predict([canvas])[0][0]

    return step


def diffusers_step(ours: Any, theirs: Any, canvas: Any) -> Callable[[], Any]:
    """The same latents, prompt and timestep through diffusers' model, guided as its pipeline does it."""
    import torch

    from generator import sampling

    request, channels = canvas.request, ours.dit.config.in_channels
    states = ours.text.encode([request.negative_prompt, request.prompt])
    height, width = canvas.latents.shape[-2:]
    rope = ours.dit.rope(height, width)
    inputs = {
        "encoder_hidden_states": states.clip,
        "text_embedding_mask": states.clip_mask,
        "encoder_hidden_states_t5": states.t5,
        "text_embedding_mask_t5": states.t5_mask,
        "image_rotary_emb": (rope.real.repeat_interleave(2, 1), rope.imag.repeat_interleave(2, 1)),
    }
    if ours.dit.config.use_style_cond_and_image_meta_size:
        inputs["image_meta_size"] = ours.meta_size(request, 2)
        inputs["style"] = torch.zeros(2, dtype=torch.long)
    timesteps = canvas.plan.timesteps[:1].expand(2)

    def step() -> Any:
        with torch.inference_mode():
            output = theirs.transformer(canvas.latents.expand(2, -1, -1, -1), timesteps, **inputs).sample[:, :channels]
            return sampling.guide(output[:1], output[1:], request.guidance)

    return step


# --- whole pictures


def compare_pictures(ours: Any, theirs: Any, side: int, rounds: int) -> dict[str, Any]:
    """From the prompt to the pixels; the largest difference of two pixels is told too."""
    import torch

    request = DrawRequest(PROMPT, seed=7, size=(side, side), steps=STEPS, guidance=GUIDANCE)

    def own() -> Image.Image:
        ours.text.known.clear()  # diffusers reads the prompts each time, too
        return ours.draw(request)

    def other() -> Image.Image:
        made = theirs(
            **embeddings(theirs, request), width=request.size[0], height=request.size[1],
            num_inference_steps=request.steps, guidance_scale=request.guidance, use_resolution_binning=False,
            generator=torch.Generator().manual_seed(request.seed),
        )  # fmt: skip
        picture: Image.Image = made.images[0]
        return picture

    apart = largest_difference(own(), other())
    times = alternate({"ours": own, "theirs": other}, rounds)
    seconds = round(statistics.median(times["ours"]), 3)
    return {
        **ratio("picture_ratio", times["theirs"], times["ours"]), "picture_seconds": seconds, "picture_parity": apart
    }  # fmt: skip


def embeddings(theirs: Any, request: DrawRequest) -> dict[str, Any]:
    """The pipeline's own encodings of both prompts; asked for first because it takes every T5 to read 256 tokens."""
    config = theirs.transformer.config
    made: dict[str, Any] = {}
    for index, suffix in ((0, ""), (1, "_2")):
        length = (config.text_len, config.text_len_t5)[index]
        prompt, negative, mask, negative_mask = theirs.encode_prompt(
            request.prompt, negative_prompt=request.negative_prompt, max_sequence_length=length,
            text_encoder_index=index, device=theirs.device, dtype=theirs.transformer.dtype,
        )  # fmt: skip
        made |= {f"prompt_embeds{suffix}": prompt, f"negative_prompt_embeds{suffix}": negative}
        made |= {f"prompt_attention_mask{suffix}": mask, f"negative_prompt_attention_mask{suffix}": negative_mask}
    return made


def largest_difference(one: Image.Image, other: Image.Image) -> int:
    """Of two pixels' values, of 255."""
    return int(np.abs(np.asarray(one, dtype=int) - np.asarray(other, dtype=int)).max())


def edit_cost(engine: Any, rounds: int) -> dict[str, Any]:
    """The denoiser's time for an edit of a picture that was just drawn, as a share of its time for a fresh one."""
    side = engine.pipeline.native
    source = DrawRequest(PROMPT, size=(side, side), steps=STEPS, guidance=GUIDANCE)
    fresh = replace(source, prompt=PROMPT.replace("blue", "yellow"))
    requests = {"fresh": fresh, "edit": replace(fresh, source=source)}
    engine.submit(source).result()
    seconds: Times = {name: [] for name in requests}
    for _ in range(rounds):
        for name, request in requests.items():
            seconds[name].append(engine.submit(request).result().timings["denoise"])
    return ratio("edit_cost", seconds["edit"], seconds["fresh"])


# --- drawings at once


def throughput(engine: Any, side: int, rounds: int) -> dict[str, Any]:
    """Pictures per second of so many requests submitted at once, over those of one after the other; how far their
    pictures are from those drawn alone; and how long a second user waits behind a first who submitted 20."""
    request = DrawRequest(PROMPT, size=(side, side), steps=STEPS, guidance=GUIDANCE)
    most = max(CROWDS)

    def at_once(n: int) -> list[Image.Image]:
        pictures = []
        for start in range(0, most, n):  # all contestants draw the same
            jobs = [engine.submit(seeded(request, i)) for i in range(start, start + n)]
            pictures += [job.result().image for job in jobs]
        return pictures

    same = [replace(request, seed=i) for i in range(most)]
    alone_first = [engine.submit(one).result().image for one in same]
    together = [job.result().image for job in [engine.submit(one) for one in same]]
    apart = max(map(largest_difference, alone_first, together))
    times = alternate({str(n): partial(at_once, n) for n in CROWDS}, rounds)
    alone = statistics.median(times["1"]) / most
    result: dict[str, Any] = {"pictures_per_second_1": round(1 / alone, 2)}
    for n in CROWDS[1:]:
        result |= ratio(f"throughput_ratio_{n}", times["1"], times[str(n)])
    return {**result, "crowd_parity": apart, "second_user_wait": second_user(engine, request, alone)}


def seeded(request: DrawRequest, seed: int, owner: str = "") -> DrawRequest:
    """Another picture of another prompt: one that is remembered would cost less than users' do."""
    return replace(request, prompt=f"{request.prompt} {time.perf_counter_ns()}", seed=seed, owner=owner)


def second_user(engine: Any, request: DrawRequest, alone: float, visits: int = 20) -> float:
    """How long a second user waits for a picture, beyond the time that it takes alone, in pictures' times: the 95th
    percentile over `visits`, at moments spread over the first user's drawings, of whom 20 always wait."""
    waits = []
    busy: list[Any] = []
    for visit in range(visits):
        busy = [job for job in busy if not job.future.done()]
        busy += [engine.submit(seeded(request, i, "first")) for i in range(20 + engine.batch - len(busy))]
        time.sleep(alone * visit / visits)
        started = time.perf_counter()
        engine.submit(seeded(request, visit, "second")).result()
        waits.append((time.perf_counter() - started) / alone - 1)
    for job in busy:
        job.cancel()
    return round(float(np.percentile(waits, 95)), 2)
