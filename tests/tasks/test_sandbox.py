from concurrent.futures import ThreadPoolExecutor

import jinja2
import pytest
from jinja2.sandbox import ImmutableSandboxedEnvironment

from icl_eval.tasks import sandbox

LIBRARY = ImmutableSandboxedEnvironment(undefined=jinja2.StrictUndefined, extensions=["jinja2.ext.loopcontrols"])
ENVIRONMENT = sandbox.bound_environment(LIBRARY)
VALUES = {"text": "One two.", "rows": [{"n": 3, "word": "b"}, {"n": 1, "word": "a"}], "half": "\ud800"}
VALUES["long"] = "a" * 20_000_001
LARGE = "it creates a string of more than 20,000,000 characters, or a list of that size"
MANY = "it creates strings of more than 100,000,000 characters in total"
LONG = "it takes more than 0.2 s of processor time"
CHANCE = "it uses random numbers, but a prompt must be reproducible"
NUMBER = "it creates a number of more than 10,000 bits"
BIG = "(['a' * 1000000] * 1000)"
DOUBLED = "{{% set s = namespace(x='aaaaaaaaaa') %}}{{% for i in range(60) %}}{{% set s.x = {} %}}{{% endfor %}}"


def rendered(text):
    return sandbox.render(ENVIRONMENT.from_string(text), VALUES)


@pytest.mark.parametrize(
    "text",
    [
        "{{ text * 2 ~ text|upper }} {{ 2 ** 10 }} {{ '%s-%03d' % (text, 7) }} {{ [1] + [2] }}",
        "{% for row in rows|sort(attribute='n') %}{{ loop.index }}/{{ loop.length }} {{ row.word }}{% endfor %}",
        "{% for row in rows if row.n > 1 %}{{ row.n }}{% else %}none{% endfor %}",
        "{% for row in [[1, [2]], [3]] recursive %}<{{ loop(row) if row is iterable else row }}>{% endfor %}",
        "{% macro twice(x) %}{{ x }}{{ x }}{% endmacro %}{{ twice(text) }}{% set x %}in{{ text }}{% endset %}{{ x }}",
        "{{ rows|map(attribute='word')|join(', ') }} {{ rows|tojson }} {{ text.replace('o', '0').center(20) }}",
        "{{ '{:>5}'.format(text[:2]) }}{% for c in text %}{% if c == ' ' %}{% break %}{% endif %}{{ c }}{% endfor %}",
        "{{ text is string }} {{ rows[0].get('n', 0) }} {{ 'two' in text }} {{ text|length }} {{ text|default('x') }}",
        "{{ 7 // 2 }} {{ 7 % 4 }} {{ 2.5 * 2 }} {{ -3 + 1 }} {{ rows|selectattr('n', 'gt', 1)|list }} {{ none }}",
        "{{ rows|sum(attribute='n') }} {{ [[1], [2]]|sum(start=[]) }} {{ [1.5, 2]|sum }}",
        "{{ rows == [1] }} {{ 1 < 2 < 3 }} {{ 'a b c'.rsplit(' ', 1) }}",
    ],
)
def test_what_stays_within_bounds_is_what_the_library_renders(text):
    assert rendered(text) == LIBRARY.from_string(text).render(VALUES)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("{{ 'a' * 10**9 }}", LARGE),
        ("{{ [1] * 10**7 }}", LARGE),
        ("{{ 10 ** (10 ** 9) }}", NUMBER),
        ("{% set s = namespace(x=3) %}{% for i in range(60) %}{% set s.x = s.x * s.x %}{% endfor %}", NUMBER),
        (DOUBLED.format("s.x + s.x"), LARGE),
        (DOUBLED.format("s.x ~ s.x"), LARGE),
        (DOUBLED.format("[s.x, s.x]") + "{{ s.x }}", LONG),
        ("{% for i in range(100000) %}{% for j in range(100000) %}{% endfor %}{% endfor %}", LONG),
        ("{% macro f(n) %}{% if n %}{{ f(n-1) }}{{ f(n-1) }}{% endif %}{% endmacro %}{{ f(60) }}", LONG),
        ("{% for i in range(100000) %}{{ 'a' * 1000000 }}{% endfor %}", LARGE),
        ("{% for i in range(1000) %}{% set x = 'a' * 1000000 %}{% endfor %}", MANY),
        ("{% set x %}{% for i in range(1000) %}{{ 'a' * 1000000 }}{% endfor %}{% endset %}", MANY),
        ("{{ 'a'.center(1000000000) }}", LARGE),
        ("{{ 'a'|center(1000000000) }}", LARGE),
        ("{{ 'a'|indent(1000000000) }}", LARGE),
        ("{{ [1]|batch(1000000000, 'x')|list }}", LARGE),
        ("{{ '%1000000000d' % 1 }}", LARGE),
        ("{{ '%*d' % (1000000000, 1) }}", LARGE),
        ("{{ '%1000000000d'|format(1) }}", LARGE),
        ("{{ '{:1000000000}'.format(1) }}", LARGE),
        ("{{ '{:{}}'.format(1, 1000000000) }}", LARGE),
        ("{{ ('a' * 1000000).replace('a', 'a' * 1000000) }}", LARGE),
        ("{{ ('a' * 1000000)|replace('a', 'a' * 1000000) }}", LARGE),
        (f"{{{{ {BIG}|join }}}}", LARGE),
        (f"{{{{ ','.join({BIG}) }}}}", LARGE),
        (f"{{{{ {BIG} }}}}", LARGE),
        (f"{{{{ {BIG}|upper }}}}", LARGE),
        (f"{{{{ 'x' ~ {BIG} }}}}", LARGE),
        ("{{ 1.5|round(1000000000) }}", LARGE),
        ("{{ (range(100000)|batch(1)|sum(start=[]))|length }}", MANY),
        ("{{ ('a' * 200000).rfind('ab' ~ 'a' * 100000) }}", LARGE),
        ("{{ ('a ' * 1000000)|wordwrap(1) }}", "it applies wordwrap to more than 100,000 characters"),
        ("{{ ('<!---->' * 1000000)|striptags }}", "it applies striptags to more than 100,000 characters"),
        ("{{ ('ba' * 10000000)|sort|first }}", "it applies sort to more than 1,000,000 characters"),
        (
            "{% set s = namespace(x=[1], y=[1]) %}{% for i in range(60) %}"
            "{% set s.x = [s.x, s.x] %}{% set s.y = [s.y, s.y] %}{% endfor %}{{ s.x == s.y }}",
            LONG,
        ),
        ("{{ long|trim }}", "it applies trim to more than 20,000,000 characters"),
        ("{{ range(10)|random }}", CHANCE),
        ("{{ lipsum() }}", CHANCE),
        ("{{ rows|map('upper') }}", "it prints a Python object (<generator object sync_do_map>)"),
        ("{{ 'x' ~ range }}", "it prints a Python object (<function safe_range>)"),
        ("{{ range|string }}", "it prints a Python object (<function safe_range>)"),
        ("{{ half }}", r"it contains a lone surrogate ('\ud800')"),
    ],
)
def test_what_goes_beyond_is_refused_before_it_is_made(text, sentence, monkeypatch):
    monkeypatch.setattr(sandbox, "MAX_SECONDS", 0.2 if sentence == LONG else 60)  # a busy machine is slow
    with pytest.raises((jinja2.exceptions.SecurityError, ValueError)) as error:
        rendered(text)
    assert str(error.value) == sentence


def test_every_rendering_has_all_of_the_bounds(monkeypatch):
    monkeypatch.setattr(sandbox, "MAX_TOTAL", 1000)
    for _ in range(3):
        assert rendered("{{ 'a' * 400 }}") == "a" * 400
    with pytest.raises(jinja2.exceptions.SecurityError):
        rendered("{{ 'a' * 400 }}{{ 'a' * 400 }}")


def test_a_rendering_in_another_thread_leaves_the_bounds_of_this_one_alone(monkeypatch):
    monkeypatch.setattr(sandbox, "MAX_TOTAL", 1000)

    def render_elsewhere():
        with ThreadPoolExecutor(1) as threads:  # a new thread, whose processor time begins at 0
            return threads.submit(rendered, "{{ 'a' * 400 }}").result()[:1]

    def render_here(text):
        return sandbox.render(ENVIRONMENT.from_string(text), {"elsewhere": render_elsewhere})

    assert render_here("{{ 'b' * 300 }}{{ elsewhere() }}") == "b" * 300 + "a"
    with pytest.raises(jinja2.exceptions.SecurityError):  # what was spent before is not forgotten
        render_here("{{ 'b' * 400 }}{{ elsewhere() }}{{ 'b' * 400 }}")


def test_an_expression_has_the_same_bounds_each_time(monkeypatch):
    monkeypatch.setattr(sandbox, "MAX_TOTAL", 1000)
    repeated = sandbox.compile_expression(ENVIRONMENT, "text * times")
    assert [len(repeated({"text": "a", "times": 700})) for _ in range(3)] == [700] * 3
    with pytest.raises(jinja2.exceptions.SecurityError):
        repeated({"text": "a", "times": 1100})
