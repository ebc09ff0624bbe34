"""What a task adds to the frozen foundation (M6-Rec, section 3.4): prompts, options, adapters, LoRA, heads, blocks.

Every method is the same composition, so a new one is one more ``Method`` (``adapters.methods``) or ``AdapterModule``:

    prompts      vectors put before the context, or none
    change       what layers from ``first_layer`` on do differently: Adapters | LoRA | Blocks | nothing
    head         a linear map to the classes, or the last prompts as its rows ("options")
    projections  two maps to a shared space, for retrieval

Letters added to the legend of ``m6rec.foundation``: R rank or adapter width, I/O inputs and outputs of a linear map,
E width of a retrieval vector, and C is the number of classes in ``logits_BC`` and ``options_CD``.
"""

from m6rec.adapters.router import AdapterRouter
from m6rec.adapters.task_adapter import TaskAdapter, TaskAdapterConfig, create, load

__all__ = ["AdapterRouter", "TaskAdapter", "TaskAdapterConfig", "create", "load"]
