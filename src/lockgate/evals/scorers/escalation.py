"""escalation_rate: how often a person is needed."""

from __future__ import annotations

import re
from typing import Any

from lockgate.evals.scorers.fields import field_of
from lockgate.evals.scorers.sample import Mark, Sample, Scorer, as_json

PHRASES = {
    "en": r"\b(?<!not )(?<!n't )(escalat(e|ed|ing)|(transfer(red|ring)?|hand(ed|ing)?|pass(ed|ing)?|forward(ed|ing)?"
    r"|connect(ed|ing)?|put(ting)?) (you|this|it|the \w+)( over| on| through)? (to|with) (a|an|our|the) (human|person"
    r"|colleague|agent|specialist|supervisor|manager|team))",
    "de": r"\beskalier|\b(verbinde|leite|übergebe|gebe|reiche) (ich )?(sie|dich|das|dies|es|ihr\w*|den|die) "
    r"[^.!?]{0,40}\b(kolleg|mitarbeiter|mensch|berater|vorgesetzt|team\b)"
    r"|\b(kolleg|mitarbeiter|mensch|berater|vorgesetzt|team\b)[^.!?]{0,20}(weitergeleitet|weitergegeben|übergeben\b)",
    "es": r"\bescal(o|aré|amos|ado)\b|\b(te|le|lo|la|los|les|os)? ?(transfiero|transferiré|paso|pasaré|derivo|derivaré"
    r"|comunico|conecto|pongo en contacto|he (transferido|derivado|pasado))\b[^.!?]{0,40}"
    r"\b(agente|persona|compañer|humano|especialista|supervisor|equipo)",
    "fr": r"\bj'escalade|\b(transfère|transmets|transférer|passe|dirige|confie|mets en relation)\b[^.!?]{0,40}"
    r"\b(agent|humain|collègue|conseiller|conseillère|spécialiste|responsable|équipe)"
    r"|\b(transmise?|transférée?)s? à (un|une|notre|mon) (agent|humain|collègue|conseill|spécialiste|responsable"
    r"|équipe)",
    "it": r"\b(trasferisco|passo|inoltro|metto in contatto|trasferirò|passerò)\b[^.!?]{0,40}"
    r"\b(operatore|operatrice|persona|collega|umano|specialista|responsabile|team)\b",
    "pt": r"\b(transfiro|transferir|transferirei|encaminho|encaminhar|encaminhei|encaminharei|passo|transferindo"
    r"|encaminhando)\b[^.!?]{0,40}\b(atendente|agente|pessoa|humano|colega|especialista|supervisor|equipe|equipa)",
    "ru": r"\b(перевожу|переведу|передаю|передам|передал[аи]?|соединяю|соединю|переключаю|переключу)\b[^.!?]{0,40}"
    r"\b(оператор|специалист|сотрудник|коллег|менеджер|человек|руководител)",
    "tr": r"\b(temsilci|yetkili|uzman|çalışan|insan|ekib|ekip|yönetici)\w*( \w+){0,2} "
    r"(aktarıyor|aktaracağ|bağlıyor|bağlayacağ|yönlendiriyor|yönlendireceğ|iletiyor|ileteceğ|aktardım|ilettim)",
    "zh": r"(转接|转给|转交|转至|转到|移交|联系)[^。！？]{0,8}"
    r"(人工|客服|专员|同事|经理|主管|专家|团队)|为您转人工|升级处理",
    "ja": r"(担当者|担当|オペレーター|スタッフ|上司|専門|有人)[^。！？]{0,12}"
    r"(引き継|おつなぎ|お繋ぎ|転送|エスカレ|取り次|代わり)|エスカレーション(し|いた)",
    "ar": r"(أحول|سأحول|سنحول|تحويل|أحيل|سأحيل|سأنقل|حولت|أوصل|سأوصل)\S*[^.!؟]{0,40}"
    r"(موظف|ممثل|زميل|مختص|متخصص|مشرف|مدير|شخص|فريق|بشري)",
    "hi": r"(एजेंट|प्रतिनिधि|व्यक्ति|सहकर्मी|विशेषज्ञ|प्रबंधक|अधिकारी|टीम)[^।.!?]{0,20}(स्थानांतरित|ट्रांसफर|जोड़|भेज|सौंप|कनेक्ट)",
}
"""Usual phrases of handing over to a person, by language."""
_HANDS_OVER = re.compile("|".join(PHRASES.values()), re.I)
_TOOL = re.compile(r"(escalat|transfer_to_(a_)?human|hand_?off|human_agent)", re.I)


def escalation_rate(*, tools: list[str] | None = None, pattern: str | None = None, field: str | None = None) -> Scorer:
    """1 when the run handed over to a person, else 0: the mean is the rate.

    It did when it waits for an approval, called one of ``tools`` (by default those named like an escalation), or said
    so in its answer: in ``pattern``'s words (a regular expression; by default usual phrases in twelve languages), or
    where ``field`` names one of a JSON answer, by its being true or holding such words. A rule, not a model's opinion.

    Range: 0 or 1, lower is better. Needs: nothing. Source: containment rate of contact centres, the other way round.
    """
    says = re.compile(pattern, re.I) if pattern else _HANDS_OVER

    def score(sample: Sample) -> Mark:
        if sample.result.status == "suspended":
            return Mark(1.0, "waits for an approval")
        for call in sample.result.tools_used:
            if call.name in tools if tools is not None else _TOOL.search(call.name):
                return Mark(1.0, f"called {call.name}")
        answer = _read(sample.output)
        if field is not None:
            answer = field_of(answer, field)
            if answer is True:
                return Mark(1.0, f"{field} is true")
        said = says.search(" \n".join(_words(answer)))
        return Mark(1.0, f"said {said[0]!r}") if said else Mark(0.0)

    return score


def _read(output: Any) -> Any:
    try:
        return as_json(output)
    except ValueError:
        return output


def _words(value: Any) -> list[str]:
    """The texts in an answer; of JSON its values alone, for ``{"escalated": false}`` says the contrary."""
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list):
        return [text for one in value for text in _words(one)]
    return [value] if isinstance(value, str) else []
