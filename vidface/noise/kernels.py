"""Kernels of `vidface.noise.clusters`: components and spanning trees of many clips at once.

Written for the array API (array-api-compat), so that one code runs on NumPy and on PyTorch's
tensors, on the CPU and on CUDA. A batch holds b clips of n rows each; where a clip is shorter, the
rest of its rows are not usable. Nothing here loops over clips, rows or pairs in Python, but for
Prim's algorithm, which adds one row of every clip of the batch a step.
"""

from __future__ import annotations

from typing import Any

Array = Any  # a NumPy array or a PyTorch tensor

PIVOT_FROM = 24
"""Clips of so many rows go the short way (`components_by_pivot`); measured, docs/log.md."""

_PAIR_BYTES = 12  # a similarity, whether it joins, and what `join` makes of it

_PIVOT_SAMPLE = 8  # rows of a clip that are asked where its middle lies


def namespace(array: Array) -> Any:
    """The array API of an array's library."""
    from array_api_compat import array_namespace

    return array_namespace(array)


def components(
    rows: Array, scales: Array, usable: Array, cosine_threshold: float, block_bytes: int
) -> Array:
    """First row of each row's component, where ``cosine > threshold`` joins two rows.

    Every similarity is computed. A clip whose similarities do not fit into `block_bytes` goes
    through in blocks of rows; each block's edges are joined into the forest and forgotten.

    Args:
        rows: (b, n, d) float32, zero where not usable. Scaled in place: to be one's own.
        scales: (b, n) float32, one over each row's length.
        usable: (b, n) bool.
        cosine_threshold: in (−1, 1).
        block_bytes: for the similarities and what is made of them.

    Returns:
        (b, n) integers; a row that is not usable is its own component.
    """
    xp = namespace(rows)
    b, n, _ = rows.shape
    rows *= scales[:, :, None]
    roots = _numbers(xp, b, n, rows)
    all_usable = bool(xp.all(usable))
    rows_per_block = min(n, max(1, block_bytes // (b * n * _PAIR_BYTES)))
    for start in range(0, n, rows_per_block):
        stop = min(start + rows_per_block, n)
        # Columns before `start` met these rows in an earlier block.
        products = xp.matmul(rows[:, start:stop], xp.matrix_transpose(rows[:, start:]))
        edges = products > cosine_threshold  # (b, stop - start, n - start)
        del products
        if not all_usable:  # a zero row has cosine 0, above a negative threshold
            edges &= usable[:, start:stop, None]
            edges &= usable[:, None, start:]
        roots = join(roots, edges, start)
    return roots


def components_by_pivot(
    rows: Array, scales: Array, usable: Array, cosine_threshold: float, block_bytes: int
) -> Array:
    """`components` with fewer products; arguments and result are its.

    Every row nearer than the threshold to one chosen row, the pivot, is in the pivot's component;
    what these members are to each other need not be known. Only the rest is compared with all.
    The pivot is the row nearest to the mean of eight rows of its clip: the members are then most
    of the clip, where one person is most of it.
    """
    xp = namespace(rows)
    b, n, _ = rows.shape
    step = -(-n // _PIVOT_SAMPLE)
    sample = rows[:, ::step] * scales[:, ::step, None]  # (b, ≤ 8, d)
    middle = xp.sum(sample, axis=1)
    pivots = xp.argmax(xp.matmul(sample, middle[:, :, None])[:, :, 0], axis=1)
    clips = xp.arange(b, device=_device(rows))
    pivot_rows = sample[clips, pivots]  # (b, d)
    near = xp.matmul(rows, pivot_rows[:, :, None])[:, :, 0] * scales  # (b, n)
    member = near > cosine_threshold
    # A pivot that is not usable is a zero row: above a negative threshold, it would join all.
    member &= usable & usable[clips, pivots * step][:, None]
    rest = usable & ~member
    counts = xp.sum(xp.astype(rest, xp.int32), axis=1)
    first_member = xp.argmax(xp.astype(member, xp.uint8), axis=1)  # the first of them
    roots = xp.where(member, first_member[:, None], _numbers(xp, b, n, rows))

    # A clip with a large rest has no dominant person: the plain way is as fast.
    small = 3 * counts <= n
    k = int(xp.max(xp.where(small, counts, 0)))
    if b * k * n * _PAIR_BYTES > block_bytes:
        return components(rows, scales, usable, cosine_threshold, block_bytes)
    if not bool(xp.all(small)):
        large = xp.nonzero(~small)[0]
        roots[large] = components(
            rows[large], scales[large], usable[large], cosine_threshold, block_bytes
        )
    if k == 0:
        return roots

    # The rest's rows first, in their order; what fills up to k is not valid.
    places = xp.argsort(xp.astype(~rest, xp.uint8), axis=1, stable=True)[:, :k]  # (b, k)
    valid = xp.take_along_axis(rest, places, axis=1) & small[:, None]
    index = (clips[:, None], places)
    products = xp.matmul(rows[index] * scales[index][:, :, None], xp.matrix_transpose(rows))
    products *= scales[:, None, :]  # (b, k, n)
    edges = products > cosine_threshold
    del products
    edges &= valid[:, :, None]
    # Nodes: 0 is the pivot's component, 1 … k the rest's rows.
    node_edges = xp.zeros((b, k + 1, k + 1), dtype=xp.bool, device=_device(rows))
    node_edges[:, 0, 1:] = xp.any(edges & member[:, None, :], axis=2)
    among = xp.take_along_axis(edges, xp.broadcast_to(places[:, None, :], (b, k, k)), axis=2)
    node_edges[:, 1:, 1:] = among & valid[:, None, :]
    nodes = join(_numbers(xp, b, k + 1, rows), node_edges, 0)  # (b, k + 1)
    node_rows = xp.concat([first_member[:, None], places], axis=1)
    lowest = xp.min(xp.where(nodes == 0, node_rows, n), axis=1)
    firsts = xp.where(nodes == 0, lowest[:, None], xp.take_along_axis(node_rows, nodes, axis=1))
    roots = xp.where(member & small[:, None], lowest[:, None], roots)
    roots[index] = xp.where(valid, firsts[:, 1:], roots[index])
    return roots


def join(roots: Array, edges: Array, start: int) -> Array:
    """Union-Find of a batch, all clips at once: the forest after `edges` have joined its trees.

    Rounds of hooking each tree under the lowest root that any of its rows touches, and of pointer
    jumping until every tree is a star again (Liu and Tarjan, SOSA 2019, see `cluster_frames`).

    Args:
        roots: (b, n) integers, stars: roots[roots] == roots, and a root is its tree's lowest row.
        edges: (b, r, c) bool, for the rows [start, start + r) and the columns [start, start + c)
            of each clip; an edge counts in both directions.

    Returns:
        (b, n): `roots` after joining; stars again.
    """
    xp = namespace(edges)
    r = edges.shape[1]
    n = roots.shape[1]
    # The type's largest value stands for "no edge", and lies above every row number.
    small = xp.__name__.endswith("numpy") and n < 2**16 - 1
    dtype = (xp.uint8 if n < 2**8 - 1 else xp.uint16) if small else xp.int32
    no_edge = xp.astype(~edges, dtype)
    no_edge *= int(xp.iinfo(dtype).max)  # edge: 0; none: all ones
    forest = roots
    active = None  # which clips `forest` and `no_edge` are of; None = all
    while True:
        labels = xp.astype(forest[:, start:], dtype)  # (clips, c)
        lowest = xp.min(no_edge | labels[:, :r, None], axis=1)  # over a column's rows
        across = xp.min(no_edge | labels[:, None, :], axis=2)  # over a row's columns
        lowest[:, :r] = xp.minimum(lowest[:, :r], across)
        hooks = lowest < labels
        moving = xp.any(hooks, axis=1)
        if not bool(xp.any(moving)):
            break
        if 2 * int(xp.sum(xp.astype(moving, xp.int32))) < moving.shape[0]:
            if active is None:
                active, whole = xp.nonzero(moving)[0], forest
            else:
                whole[active] = forest
                active = active[moving]
            forest, no_edge = forest[moving], no_edge[moving]
            lowest, labels, hooks = lowest[moving], labels[moving], hooks[moving]
        forest = _hook(xp, forest, labels, lowest, hooks)
        while True:
            jumped = xp.take_along_axis(forest, forest, axis=1)
            if bool(xp.all(jumped == forest)):
                break
            forest = jumped
    if active is None:
        return forest
    whole[active] = forest
    return whole


def _hook(xp: Any, forest: Array, labels: Array, lowest: Array, hooks: Array) -> Array:
    """Each root in `labels` that hooks: under the lowest of what its rows touch."""
    b, n = forest.shape
    clips, columns = xp.nonzero(hooks)
    olds = clips * n + xp.astype(labels[clips, columns], xp.int64)
    news = xp.astype(lowest[clips, columns], forest.dtype)
    flat = xp.reshape(forest, (b * n,))
    if xp.__name__.endswith("numpy"):
        flat = flat.copy()
        xp.minimum.at(flat, olds, news)
    else:
        flat = flat.scatter_reduce(0, olds, news, "amin")
    return xp.reshape(flat, (b, n))


def spanning_trees(
    rows: Array, scales: Array, usable: Array, block_bytes: int
) -> tuple[Array, Array]:
    """Maximum spanning trees of a batch by Prim's algorithm, one row of every clip a step.

    Args:
        rows, scales, usable: as of `components`.
        block_bytes: where the similarities take more, each row of them is computed when wanted.

    Returns:
        order: (b, n) integers, the clip's rows as Prim adds them: usable rows first, from the
            first of them; what comes behind has no meaning.
        similarities: (b, n) float32, the largest cosine of each of them to one added before;
            −inf at the first, and behind the usable ones.
    """
    xp = namespace(rows)
    b, n, _ = rows.shape
    device = _device(rows)
    clips = xp.arange(b, device=device)
    rows *= scales[:, :, None]
    fits = b * n * n * 4 <= block_bytes
    products = xp.matmul(rows, xp.matrix_transpose(rows)) if fits else None  # (b, n, n)

    def to_all(places: Array) -> Array:  # (b,) → (b, n)
        if products is not None:
            return products[clips, places]
        return xp.matmul(rows, rows[clips, places][:, :, None])[:, :, 0]

    minus = xp.asarray(-xp.inf, dtype=xp.float32, device=device)
    order = xp.zeros((n, b), dtype=xp.int64, device=device)
    links = xp.zeros((n, b), dtype=xp.float32, device=device)
    # Where a row was added, or cannot be: never the largest again.
    barred = xp.where(usable, xp.zeros_like(minus), minus)  # (b, n) 0 or −inf
    best = xp.zeros((b, n), dtype=xp.float32, device=device) + minus
    places = xp.argmax(xp.astype(usable, xp.uint8), axis=1)
    for i in range(n):
        order[i] = places
        links[i] = best[clips, places]
        barred[clips, places] = minus
        best = xp.maximum(best, to_all(places)) + barred
        places = xp.argmax(best, axis=1)
    return xp.permute_dims(order, (1, 0)), xp.permute_dims(links, (1, 0))


def _numbers(xp: Any, b: int, n: int, like: Array) -> Array:
    """(b, n): 0 … n − 1 in every line, its own memory."""
    return xp.zeros((b, n), dtype=xp.int64, device=_device(like)) + xp.arange(
        n, device=_device(like)
    )


def _device(array: Array) -> Any:
    from array_api_compat import device

    return device(array)
