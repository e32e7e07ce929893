"""Chat templates like those of public model families, each with its rendering of a conversation."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Shape:
    """A chat template, and its rendering of one demonstration and a question."""

    template: str
    text: str
    """The prompt of the turns `q1`, `a1` and `q2`."""
    end: str | None
    """The token that ends an answer."""
    adds: str = "$A"
    """What the tokenizer itself adds around a string."""


_TURNS = "{% for m in messages %}"
_PART = "{% for c in m['content'] if c['type'] == 'text' %}{{ c['text'] }}{% endfor %}"
CHATML = (
    _TURNS + "<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
SHAPES = {
    "chatml": Shape(
        CHATML,
        "<|im_start|>user\nq1<|im_end|>\n<|im_start|>assistant\na1<|im_end|>\n<|im_start|>user\nq2<|im_end|>\n"
        "<|im_start|>assistant\n",
        "<|im_end|>",
    ),
    "chatml of a tokenizer that opens texts": Shape(
        CHATML,
        "<|im_start|>user\nq1<|im_end|>\n<|im_start|>assistant\na1<|im_end|>\n<|im_start|>user\nq2<|im_end|>\n"
        "<|im_start|>assistant\n",
        "<|im_end|>",
        adds="<s> $A",
    ),
    "qwen2, with a system turn of its own": Shape(
        "{% if messages[0]['role'] != 'system' %}<|im_start|>system\nYou help.<|im_end|>\n{% endif %}" + CHATML,
        "<|im_start|>system\nYou help.<|im_end|>\n<|im_start|>user\nq1<|im_end|>\n<|im_start|>assistant\na1<|im_end|>\n"
        "<|im_start|>user\nq2<|im_end|>\n<|im_start|>assistant\n",
        "<|im_end|>",
    ),
    "qwen3, which drops earlier thoughts": Shape(
        "{% set ns = namespace(last=messages|length - 1) %}"
        + _TURNS
        + "{% set text = m.content if m.content is string else '' %}<|im_start|>{{ m.role }}\n"
        "{% if m.role == 'assistant' %}{% set text = text.split('</think>')[-1].lstrip('\n') %}{% endif %}"
        "{{ text }}<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n"
        "{% if enable_thinking is defined and enable_thinking is false %}<think>\n\n</think>\n\n{% endif %}{% endif %}",
        "<|im_start|>user\nq1<|im_end|>\n<|im_start|>assistant\na1<|im_end|>\n<|im_start|>user\nq2<|im_end|>\n"
        "<|im_start|>assistant\n",
        "<|im_end|>",
    ),
    "llama 2": Shape(
        _TURNS + "{% if (m['role'] == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('no turn') }}{% endif %}"
        "{% if m['role'] == 'user' %}{{ bos_token + '[INST] ' + m['content'].strip() + ' [/INST]' }}"
        "{% else %}{{ ' ' + m['content'].strip() + ' ' + eos_token }}{% endif %}{% endfor %}",
        "<s>[INST] q1 [/INST] a1 </s><s>[INST] q2 [/INST]",
        "</s>",
        adds="<s> $A",
    ),
    "llama 3": Shape(
        _TURNS + "{% set content = '<|start_header_id|>' + m['role'] + '<|end_header_id|>\n\n' + m['content'] | trim"
        " + '<|eot_id|>' %}{% if loop.index0 == 0 %}{% set content = bos_token + content %}{% endif %}{{ content }}"
        "{% endfor %}{% if add_generation_prompt %}<|start_header_id|>assistant<|end_header_id|>\n\n{% endif %}",
        "<s><|start_header_id|>user<|end_header_id|>\n\nq1<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\na1"
        "<|eot_id|><|start_header_id|>user<|end_header_id|>\n\nq2<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\n",
        "<|eot_id|>",
        adds="<s> $A",
    ),
    "mistral": Shape(
        "{{ bos_token }}" + _TURNS + "{% if (m.role == 'user') != (loop.index0 % 2 == 0) %}"
        "{{ raise_exception('Conversation roles must alternate') }}{% endif %}{% if m.role == 'user' %}"
        "[INST] {{ m.content }}[/INST]{% else %} {{ m.content }}{{ eos_token }}{% endif %}{% endfor %}",
        "<s>[INST] q1[/INST] a1</s>[INST] q2[/INST]",
        "</s>",
        adds="<s> $A",
    ),
    "gemma": Shape(
        "{{ bos_token }}{% if messages[0].role == 'system' %}{{ raise_exception('System role not supported') }}"
        "{% endif %}" + _TURNS + "<start_of_turn>{{ 'model' if m.role == 'assistant' else m.role }}\n"
        "{{ m.content | trim }}<end_of_turn>\n{% endfor %}"
        "{% if add_generation_prompt %}<start_of_turn>model\n{% endif %}",
        "<s><start_of_turn>user\nq1<end_of_turn>\n<start_of_turn>model\na1<end_of_turn>\n<start_of_turn>user\nq2"
        "<end_of_turn>\n<start_of_turn>model\n",
        "<end_of_turn>",
        adds="<s> $A",
    ),
    "phi 3": Shape(
        _TURNS + "{% if m.role == 'user' %}<|user|>\n{{ m.content }}<|end|>\n{% else %}<|assistant|>\n{{ m.content }}"
        "<|end|>\n{% endif %}{% endfor %}{% if add_generation_prompt %}<|assistant|>\n"
        "{% else %}{{ eos_token }}{% endif %}",
        "<|user|>\nq1<|end|>\n<|assistant|>\na1<|end|>\n<|user|>\nq2<|end|>\n<|assistant|>\n",
        "<|end|>",
    ),
    "zephyr": Shape(
        _TURNS + "{% if m['role'] == 'user' %}{{ '<|user|>\n' + m['content'] + eos_token + '\n' }}"
        "{% elif m['role'] == 'assistant' %}{{ '<|assistant|>\n' + m['content'] + eos_token + '\n' }}"
        "{% endif %}"
        "{% if loop.last and add_generation_prompt %}{{ '<|assistant|>\n' }}{% endif %}{% endfor %}",
        "<|user|>\nq1</s>\n<|assistant|>\na1</s>\n<|user|>\nq2</s>\n<|assistant|>\n",
        "</s>",
    ),
    "glm, which both write the opening of": Shape(
        "[gMASK]<sop>" + _TURNS + "<|{{ m.role }}|>\n{{ m.content }}{% endfor %}"
        "{% if add_generation_prompt %}<|assistant|>\n{% endif %}",
        "[gMASK]<sop><|user|>\nq1<|assistant|>\na1<|user|>\nq2<|assistant|>\n",
        "<|user|>",
        adds="[gMASK] <sop> $A",
    ),
    "deepseek": Shape(
        "{{ bos_token }}" + _TURNS + "{% if m.role == 'user' %}<｜User｜>{{ m.content }}{% else %}<｜Assistant｜>"
        "{{ m.content }}{{ eos_token }}{% endif %}{% endfor %}{% if add_generation_prompt %}<｜Assistant｜>{% endif %}",
        "<s><｜User｜>q1<｜Assistant｜>a1</s><｜User｜>q2<｜Assistant｜>",
        "</s>",
        adds="<s> $A",
    ),
    "command r": Shape(
        "{{ bos_token }}" + _TURNS + "<|START_OF_TURN_TOKEN|>{{ '<|USER_TOKEN|>' if m.role == 'user' else "
        "'<|CHATBOT_TOKEN|>' }}{{ m.content.strip() }}<|END_OF_TURN_TOKEN|>{% endfor %}"
        "{% if add_generation_prompt %}<|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|>{% endif %}",
        "<s><|START_OF_TURN_TOKEN|><|USER_TOKEN|>q1<|END_OF_TURN_TOKEN|><|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|>a1"
        "<|END_OF_TURN_TOKEN|><|START_OF_TURN_TOKEN|><|USER_TOKEN|>q2<|END_OF_TURN_TOKEN|><|START_OF_TURN_TOKEN|>"
        "<|CHATBOT_TOKEN|>",
        "<|END_OF_TURN_TOKEN|>",
        adds="<s> $A",
    ),
    "falcon, whose turns are plain text": Shape(
        _TURNS + "{% if not loop.first %}{{ '\n\n' }}{% endif %}{{ m.role|capitalize }}: {{ m.content }}{% endfor %}"
        "{% if add_generation_prompt %}{{ '\n\n' }}Assistant:{% endif %}",
        "User: q1\n\nAssistant: a1\n\nUser: q2\n\nAssistant:",
        None,
    ),
    "olmo": Shape(
        "{{ bos_token }}" + _TURNS + "<|{{ m.role }}|>\n{{ m.content }}{% if m.role == 'assistant' %}{{ eos_token }}"
        "{% endif %}{{ '\n' }}{% if loop.last and add_generation_prompt %}{{ '<|assistant|>\n' }}{% endif %}"
        "{% endfor %}",
        "<s><|user|>\nq1\n<|assistant|>\na1</s>\n<|user|>\nq2\n<|assistant|>\n",
        "</s>",
    ),
    "smollm, which marks what is learned": Shape(
        _TURNS + "<|im_start|>{{ m.role }}\n{% if m.role == 'assistant' %}{% generation %}{{ m.content }}<|im_end|>"
        "{% endgeneration %}{% else %}{{ m.content }}<|im_end|>{% endif %}{{ '\n' }}{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}",
        "<|im_start|>user\nq1<|im_end|>\n<|im_start|>assistant\na1<|im_end|>\n<|im_start|>user\nq2<|im_end|>\n"
        "<|im_start|>assistant\n",
        "<|im_end|>",
    ),
    "granite": Shape(
        _TURNS + "{{ '<|start_of_role|>' + m['role'] + '<|end_of_role|>' + m['content'] + '<|end_of_text|>\n' }}"
        "{% if loop.last and add_generation_prompt %}{{ '<|start_of_role|>assistant<|end_of_role|>' }}{% endif %}"
        "{% endfor %}",
        "<|start_of_role|>user<|end_of_role|>q1<|end_of_text|>\n<|start_of_role|>assistant<|end_of_role|>a1"
        "<|end_of_text|>\n<|start_of_role|>user<|end_of_role|>q2<|end_of_text|>\n"
        "<|start_of_role|>assistant<|end_of_role|>",
        "<|end_of_text|>",
    ),
    "llava, whose contents are lists of parts": Shape(
        _TURNS + "{{ m['role']|upper }}: " + _PART + "{% if m['role'] == 'assistant' %}{{ eos_token }}{% else %} "
        "{% endif %}{% endfor %}{% if add_generation_prompt %}ASSISTANT:{% endif %}",
        "USER: q1 ASSISTANT: a1</s>USER: q2 ASSISTANT:",
        "</s>",
    ),
    "llama 4, of strings or parts": Shape(
        "{{ bos_token }}" + _TURNS + "<|header_start|>{{ m.role }}<|header_end|>\n\n{% if m.content is string %}"
        "{{ m.content }}{% else %}" + _PART + "{% endif %}<|eot|>{% endfor %}"
        "{% if add_generation_prompt %}<|header_start|>assistant<|header_end|>\n\n{% endif %}",
        "<s><|header_start|>user<|header_end|>\n\nq1<|eot|><|header_start|>assistant<|header_end|>\n\na1<|eot|>"
        "<|header_start|>user<|header_end|>\n\nq2<|eot|><|header_start|>assistant<|header_end|>\n\n",
        "<|eot|>",
        adds="<s> $A",
    ),
    "vicuna": Shape(
        "You help.{% for m in messages %}{% if m.role == 'user' %}{{ ' USER: ' + m.content }}{% else %}"
        "{{ ' ASSISTANT: ' + m.content + eos_token }}{% endif %}{% endfor %}"
        "{% if add_generation_prompt %}{{ ' ASSISTANT:' }}{% endif %}",
        "You help. USER: q1 ASSISTANT: a1</s> USER: q2 ASSISTANT:",
        "</s>",
        adds="<s> $A",
    ),
    "internlm, of a tokenizer that closes texts": Shape(
        "{{ bos_token }}" + CHATML,
        "<s><|im_start|>user\nq1<|im_end|>\n<|im_start|>assistant\na1<|im_end|>\n<|im_start|>user\nq2<|im_end|>\n"
        "<|im_start|>assistant\n",
        "<|im_end|>",
        adds="<s> $A </s>",
    ),
    "hermes, of turns as JSON": Shape(
        "{% for m in messages %}<|im_start|>{{ {'from': m.role, 'value': m.content}|tojson }}<|im_end|>{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>{% endif %}",
        '<|im_start|>{"from": "user", "value": "q1"}<|im_end|><|im_start|>{"from": "assistant", "value": "a1"}'
        '<|im_end|><|im_start|>{"from": "user", "value": "q2"}<|im_end|><|im_start|>',
        None,
    ),
}
