"""Parameters, FLOPs and bytes of a model, from its shapes alone."""

from __future__ import annotations

from collections.abc import Callable

from .config import LanguageConfig, ModelConfig, VisionConfig
from .errors import UnsupportedError

MOST_ROWS = 2048  # of a prefill chunk: more rows make no product faster
ROWS_A_THREAD = 512  # of a pass through the tower on the cpu backend: more only push each other out of the caches
MOST_TILES = 4096  # of a pass elsewhere
LEAST_ROWS = 64  # of a piece of the tower's MLP
UNFUSED_ROWS = 256  # of gate and up that exist at a time where the gate is not fused behind the product
PAGE = 64  # positions of a page of the KV cache
DECODE_RANGE = 64  # keys of a longer sequence that are reduced apart (csrc/kernels/attention/attention.h)


def vision_parameters(c: VisionConfig) -> int:
    """Parameters of the layers that run, embeddings included."""
    d, rms = c.hidden_size, c.norm == "rms_norm"
    norms = 2 * (d if rms else 2 * d) + (2 * d if c.qk_norm else 0)
    attention = 3 * d * d + (3 * d if c.qkv_bias else 0) + d * d + d
    mlp = 2 * d * c.intermediate_size + c.intermediate_size + d
    stem = 3 * c.patch_size**2 * d + d + d + (1 + c.num_patches) * d
    return stem + c.num_layers * (norms + attention + mlp + 2 * d)


def projector_parameters(c: ModelConfig) -> int:
    wide, hidden = c.projector.input_size, c.projector.hidden_size
    return 2 * wide + wide * hidden + hidden + hidden * hidden + hidden


def language_parameters(c: LanguageConfig) -> int:
    h = c.hidden_size
    attention = h * (c.q_size + 2 * c.kv_size) + c.q_size * h
    attention += (c.q_size + 2 * c.kv_size if c.qkv_bias else 0) + (h if c.output_bias else 0)
    attention += (2 * c.head_dim if c.qk_norm else 0) + (c.num_heads if c.sinks else 0)
    biases = c.num_experts * (1 + 2 * c.expert_size + h) if c.expert_bias else 0
    total = c.vocab_size * h * (1 if c.tied_embeddings else 2) + h
    for layer in range(c.num_layers):
        sparse = c.is_sparse(layer)
        mlp = c.num_experts * (h + 3 * h * c.expert_size) + biases if sparse else 3 * h * c.intermediate_size
        total += attention + mlp + 2 * h
    return total


def vision_matrices(c: VisionConfig) -> int:
    """Parameters of the matrices in the encoder's layers."""
    return c.num_layers * (4 * c.hidden_size**2 + 2 * c.hidden_size * c.intermediate_size)


def vision_flops(c: VisionConfig, tiles: int, rows: int | None = None) -> int:
    """Multiply-adds counted as two, GEMMs and attention. rows: of a tile, CLS included, where it is not of the usual size."""
    s, d = rows or 1 + c.num_patches, c.hidden_size
    layer = 2 * s * (4 * d * d + 2 * d * c.intermediate_size) + 4 * s * s * d
    return tiles * (c.num_layers * layer + 2 * (s - 1) * 3 * c.patch_size**2 * d)


def seen_keys(c: LanguageConfig, layer: int, tokens: int) -> int:
    """Pairs of a query and a key that it sees, in a prefill of ``tokens`` tokens."""
    near = min(tokens, c.window) if layer in c.window_layers else tokens
    return near * (near + 1) // 2 + (tokens - near) * near


def language_flops(c: LanguageConfig, tokens: int) -> int:
    """Prefill of ``tokens`` tokens with one row of logits."""
    h, total = c.hidden_size, 2 * c.hidden_size * c.vocab_size
    for layer in range(c.num_layers):
        sparse = c.is_sparse(layer)
        inner = (
            c.experts_per_token * 3 * h * c.expert_size + c.num_experts * h if sparse else 3 * h * c.intermediate_size
        )
        total += (
            2 * tokens * (h * (c.q_size + 2 * c.kv_size) + c.q_size * h + inner)
            + 4 * seen_keys(c, layer, tokens) * c.q_size
        )
    return total


def model_parameters(c: ModelConfig) -> int:
    return vision_parameters(c.vision) + projector_parameters(c) + language_parameters(c.language)


# ---- workspace: bytes of the temporaries alive at the worst moment; weights, inputs, caches and results are not in it ----


def tower_workspace(
    c: VisionConfig,
    tiles: int,
    itemsize: int,
    backend: str,
    height: int | None = None,
    width: int | None = None,
    kept_rows: int = 0,
) -> int:
    """``tiles`` tiles through the tower, ``kept_rows`` rows of each kept beside its hidden rows. Tiles of another size than the
    tower's own have a table of positions, which counts here although it may stay for the next call. The reference materialises
    scores ``[tiles, heads, rows, rows]`` and fp32 norms.
    """
    grid = ((height or c.image_size) // c.patch_size, (width or c.image_size) // c.patch_size)
    patches, values = grid[0] * grid[1], 3 * c.patch_size**2
    rows, d, inner = 1 + patches, c.hidden_size, c.intermediate_size
    table, making = 0, 0
    if grid != (c.grid, c.grid):
        table = rows * d * itemsize
        # Before all that follows: the new rows in fp32, and both in fp32 and rounded where the table is of another dtype.
        making = rows * d * 4 + table + (0 if itemsize == 4 else c.num_patches * d * 4 + table)
    kept = tiles * kept_rows * d * itemsize + table
    if (
        backend == "cuda"
    ):  # pixels as floats, hidden rows (in fp32 for float16), what a layer computes beside them, and what
        # norms need to know of rows: two numbers for each 32 columns (of q and k as well), two factors
        wide, parts = 4 if itemsize == 2 else itemsize, -(-d // 32) + (-(-2 * d // 32) + 1 if c.qk_norm else 0)
        of_row = d * wide + max(4 * d, d + inner) * itemsize + 8 * parts
        return kept + tiles * (rows * of_row + patches * values * 4) + 3 * 8 * parts
    if backend != "reference":
        # hidden rows, and beside them one tile's patches and their products, then normed or mixed rows with q|k|v, or a
        # piece's normed and inner ones, with its result where a library multiplies bfloat16
        total, stem = tiles * rows, patches * (values + d) * itemsize
        piece = -(-total // mlp_pieces(c, total, backend)) * ((1 if itemsize > 2 else 2) * d + inner)
        return max(making, kept + total * d * itemsize + max(total * 4 * d * itemsize, piece * itemsize, stem))
    scores = tiles * c.num_heads * rows * rows * _score_bytes(itemsize)
    attend = tiles * rows * 9 * d * itemsize + scores
    mlp = tiles * rows * ((3 * d + 2 * inner) * itemsize + 10 * d)
    pixels = tiles * patches * values * (12 + itemsize) + 3 * tiles * rows * d * itemsize
    return max(making, kept + max(attend, mlp, pixels))


def encode_workspace(
    c: ModelConfig, tiles: int, itemsize: int, backend: str, height: int | None = None, width: int | None = None
) -> int:
    """``tiles`` tiles through tower and projector."""
    v, p = c.vision, c.projector
    patches = ((height or v.image_size) // v.patch_size) * ((width or v.image_size) // v.patch_size)
    wide = p.input_size if backend != "reference" else 3 * p.input_size
    tokens = patches // p.factor**2
    projector = (1 + patches) * v.hidden_size + tokens * (wide + 2 * p.hidden_size)
    return max(tower_workspace(v, tiles, itemsize, backend, height, width), tiles * projector * itemsize)


def prefill_workspace(c: LanguageConfig, rows: int, keys: int, itemsize: int, backend: str) -> int:
    """A chunk of ``rows`` prompt positions over at most ``keys`` keys a sequence, without cache and logits."""
    size = _rows_workspace(c, rows, itemsize, backend)
    if backend == "reference":
        return size + _scores(c, rows, keys, itemsize)
    return size


def decode_workspace(c: LanguageConfig, rows: int, keys: int, itemsize: int, backend: str) -> int:
    """A decode step of ``rows`` sequences with their logits, and the choice of a token, which goes row by row."""
    choice = c.vocab_size * (64 if backend == "reference" else 24 + 2 * itemsize)
    size = _rows_workspace(c, rows, itemsize, backend) + rows * c.vocab_size * itemsize + choice
    if backend == "reference":
        return size + _scores(c, 1, keys, itemsize)
    ranges = -(-keys // DECODE_RANGE)
    return size + (4 * rows * ranges * c.num_heads * (-(-c.head_dim // 16) * 16 + 16) if ranges > 1 else 0)


def _rows_workspace(c: LanguageConfig, rows: int, itemsize: int, backend: str) -> int:
    """Activations of ``rows`` rows in the widest step of a layer, rotary table and positions."""
    h, q, kv = c.hidden_size, c.q_size, c.kv_size
    reference = backend == "reference"
    if reference:  # fp32 rotation and norms, nothing in place
        attend = (4 * h + q + 2 * kv) * itemsize + max(20 * (q + kv), 3 * q * itemsize)
        norm, dense = 4 * h * itemsize + 10 * h, 3 * h + 4 * c.intermediate_size
    else:  # hidden rows, q|k|v, q, mixed heads
        attend = (h + max(h + q + 2 * kv, 3 * q + 2 * kv)) * itemsize
        norm, dense = 4 * h * itemsize, 3 * h + c.intermediate_size
    widest = max(attend, norm)
    if any(not c.is_sparse(layer) for layer in range(c.num_layers)):
        widest = max(widest, dense * itemsize)
    if c.num_experts:
        k, e = c.experts_per_token, c.expert_size
        chosen = (2 * h + c.num_experts + k) * itemsize + 32 * k
        if reference:
            moe = k * h * (4 * itemsize + 8) + 4 * e * itemsize + 16 * c.num_experts
        else:  # every choice's result and inner row
            moe = (k * h + k * e + h) * itemsize
        widest = max(widest, chosen + moe)
    gates = 0 if reference or itemsize > 2 else min(rows, UNFUSED_ROWS) * 2 * c.intermediate_size * itemsize
    return rows * (widest + 16 + 8 * c.head_dim) + gates


def _score_bytes(itemsize: int) -> int:
    """The reference's scores and their softmax, in fp32 beside the dtype's own."""
    return 8 if itemsize >= 4 else 8 + 2 * itemsize


def _scores(c: LanguageConfig, rows: int, keys: int, itemsize: int) -> int:
    """The reference's attention of one span: scores and causal mask, and keys copied to every query head."""
    sinks = (4 if itemsize >= 4 else 2) if c.sinks else 0  # the copy that has a column more
    return rows * keys * (c.num_heads * (_score_bytes(itemsize) + sinks) + 2) + 2 * keys * c.q_size * itemsize


def logits_workspace(c: LanguageConfig, rows: int, itemsize: int) -> int:
    """``rows`` rows of logits on their way to the result."""
    return rows * (c.vocab_size + c.hidden_size) * itemsize


def page_count(positions: int) -> int:
    return -(-positions // PAGE)


def kv_bytes(c: LanguageConfig, positions: int, itemsize: int) -> int:
    """The pages of one sequence in a cache of ``itemsize`` bytes a value."""
    return 2 * c.num_layers * page_count(positions) * PAGE * c.kv_size * itemsize


def mlp_pieces(c: VisionConfig, rows: int, backend: str) -> int:
    """Pieces in which ``rows`` rows go through a tower layer's MLP: as many as keep it within what the attention takes."""
    if backend != "cpu":
        return 1
    d = c.hidden_size
    return max(1, min(-(-(d + c.intermediate_size) // (4 * d)), rows // LEAST_ROWS))


def tiles_a_pass(
    c: VisionConfig, backend: str, threads: int, height: int | None = None, width: int | None = None
) -> int:
    """Tiles that go through the tower together where memory allows it."""
    if backend != "cpu":
        return MOST_TILES
    rows = 1 + ((height or c.image_size) // c.patch_size) * ((width or c.image_size) // c.patch_size)
    return -(-threads * ROWS_A_THREAD // rows)


def require(limit: int, least: int, what: str) -> None:
    """Raises UnsupportedError when ``limit`` bytes of max_workspace are below the ``least`` that ``what`` takes."""
    if limit < least:
        raise UnsupportedError(f"max_workspace={limit} bytes: {what} needs {least}; allowed: at least that")


def require_for_answer(
    c: ModelConfig, limit: int, prompt: int, longest: int, itemsize: int, backend: str, tile: tuple[int, int] | None
) -> None:
    """Refuses a limit under which a prompt that grows to ``longest`` positions cannot be answered; ``tile``: its size, if any."""
    least = max(
        prefill_workspace(c.language, 1, prompt, itemsize, backend),
        decode_workspace(c.language, 1, longest, itemsize, backend),
    )
    _require_with_tile(c, limit, least, f"row of a prompt of {prompt} tokens,", itemsize, backend, tile)


def require_for_logits(
    c: ModelConfig,
    limit: int,
    length: int,
    itemsize: int,
    backend: str,
    tile: tuple[int, int] | None,
    kv_itemsize: int | None = None,
) -> None:
    """As ``require_for_answer``, for the logits of ``length`` positions."""
    least = _logits_need(c.language, length, itemsize, backend, kv_itemsize)(1, 1, 1)
    _require_with_tile(c, limit, least, f"row of the logits of {length} positions", itemsize, backend, tile)


def _require_with_tile(
    c: ModelConfig, limit: int, least: int, what: str, itemsize: int, backend: str, tile: tuple[int, int] | None
) -> None:
    if tile is None:
        require(limit, least, f"one {what}")
    else:
        require(limit, max(least, encode_workspace(c, 1, itemsize, backend, *tile)), f"one tile, and one {what}")


def most(limit: int, need: Callable[[int], int], at_most: int, what: str) -> int:
    """The largest count up to ``at_most`` whose ``need(count)`` bytes stay under ``limit``. Raises when one does not fit."""
    require(limit, need(1), what)
    low, high = 1, max(at_most, 1)
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if need(middle) <= limit else (low, middle - 1)
    return low


def chunk_rows(c: LanguageConfig, keys: int, itemsize: int, backend: str, limit: int | None) -> int:
    """Rows of a prefill chunk over prompts of at most ``keys`` positions. Raises UnsupportedError when one row does not fit."""
    if limit is None:
        return MOST_ROWS
    return most(limit, lambda n: prefill_workspace(c, n, keys, itemsize, backend), MOST_ROWS, "one row of prefill")


def step_rows(c: LanguageConfig, sequences: int, keys: int, itemsize: int, backend: str, limit: int | None) -> int:
    """Sequences of a decode step, its logits counted; ``keys``: the longest that a sequence becomes. Raises as ``chunk_rows``."""
    if limit is None:
        return sequences
    return most(limit, lambda n: decode_workspace(c, n, keys, itemsize, backend), sequences, "one row of decoding")


def logits_chunks(
    c: LanguageConfig,
    batch: int,
    length: int,
    itemsize: int,
    backend: str,
    limit: int | None,
    kv_itemsize: int | None = None,
) -> tuple[int, int, int]:
    """For logits of ``[batch, length]``: sequences in the cache at a time, rows of a chunk, and rows of logits at a time."""
    if limit is None:
        return batch, MOST_ROWS, MOST_ROWS

    need = _logits_need(c, length, itemsize, backend, kv_itemsize)
    what = f"the logits of {length} positions"
    most(limit, lambda n: need(1, 1, 1), 1, what)
    # Half of what there is for the cache, so that chunks do not become small.
    group = most(limit // 2, lambda n: need(n, 1, 1), batch, what) if need(1, 1, 1) <= limit // 2 else 1
    rows = most(limit, lambda n: need(group, n, 1), min(MOST_ROWS, group * length), what)
    return group, rows, most(limit, lambda n: need(group, rows, n), rows, what)


def _logits_need(
    c: LanguageConfig, length: int, itemsize: int, backend: str, kv_itemsize: int | None
) -> Callable[[int, int, int], int]:
    def need(sequences: int, rows: int, head_rows: int) -> int:
        head = rows * c.hidden_size * itemsize + logits_workspace(c, head_rows, itemsize)
        chunk = max(prefill_workspace(c, rows, length, itemsize, backend), head)
        return sequences * kv_bytes(c, length, kv_itemsize or itemsize) + chunk

    return need
