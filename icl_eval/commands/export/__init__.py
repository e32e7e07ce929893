"""The command `icl-eval export`: writes figures and tables of finished runs and sweeps for a paper."""

from icl_eval.commands.export.folders import export_folder, export_folders

__all__ = ["export_folder", "export_folders"]
