"""The methods that lin-RFM is compared with. Each holds its matrix whole, on one machine; all share one face."""

from rfmdist.baselines.als import AlternatingLeastSquares
from rfmdist.baselines.deep_linear import DeepLinearNetwork
from rfmdist.baselines.diagonal_network import DiagonalNetwork
from rfmdist.baselines.irls import IRLS
from rfmdist.baselines.matrix_irls import MatrixIRLS
from rfmdist.baselines.minimum_norm import MinimumNorm
from rfmdist.baselines.nuclear_norm import NuclearNorm

__all__ = [
    "IRLS",
    "AlternatingLeastSquares",
    "DeepLinearNetwork",
    "DiagonalNetwork",
    "MatrixIRLS",
    "MinimumNorm",
    "NuclearNorm",
]
