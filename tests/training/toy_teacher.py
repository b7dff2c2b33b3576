"""A teacher of a few lines: two maps that can be computed by hand, and an embedding of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

DIMENSION = 16
LINEAR = np.random.default_rng(5).normal(0, 0.1, (3 * 49, DIMENSION)).astype(np.float32)


def write_teacher(path: Path, linear: np.ndarray = LINEAR) -> Path:
    """Means of 16x16 pixels ("means", 3 channels at 7x7), their squares, and an embedding."""
    nodes = [
        helper.make_node("AveragePool", ["x"], ["means"], kernel_shape=[16, 16], strides=[16, 16]),
        helper.make_node("Mul", ["means", "means"], ["squares"]),
        helper.make_node("Flatten", ["squares"], ["flat"]),
        helper.make_node("MatMul", ["flat", "linear"], ["embedding"]),
    ]
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 3, 112, 112])
    y = helper.make_tensor_value_info("embedding", TensorProto.FLOAT, ["n", linear.shape[1]])
    weights = [numpy_helper.from_array(linear, "linear")]
    graph = helper.make_graph(nodes, "toy", [x], [y], weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, path)
    return path


def means(crops: np.ndarray) -> np.ndarray:
    """What the map "means" is of faces (n, 112, 112, 3) uint8 RGB: (n, 3, 7, 7)."""
    fed = (crops.astype(np.float64) - 127.5) / 127.5
    return fed.reshape(len(crops), 7, 16, 7, 16, 3).mean(axis=(2, 4)).transpose(0, 3, 1, 2)


def embeddings(crops: np.ndarray, linear: np.ndarray = LINEAR) -> np.ndarray:
    """Unit rows (n, d)."""
    rows = (means(crops) ** 2).reshape(len(crops), -1) @ linear
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)
