"""LightningModules to start from, and the networks inside."""

from lit_gnncompress.models.agnn import AGNN
from lit_gnncompress.models.backbones import ModelName, build_backbone
from lit_gnncompress.models.dlrm import DLRM
from lit_gnncompress.models.node_classifier import NodeClassifier
from lit_gnncompress.models.recommender import Recommender

__all__ = ["AGNN", "DLRM", "ModelName", "NodeClassifier", "Recommender", "build_backbone"]
