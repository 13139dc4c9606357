"""Languages by their two-letter codes, and what families of translation models call them."""

from __future__ import annotations

from collections.abc import Collection
from typing import NamedTuple

from adaptkit.errors import DataError, unknown_name

_HAN = (("\u3400", "\u9fff"),)
_CYRILLIC = (("\u0400", "\u04ff"),)
_ARABIC = (("\u0600", "\u06ff"),)


class Language(NamedTuple):
    """A language.

    Attributes:
        code: ISO 639-1.
        name: In English, for prompts.
        flores: Name in NLLB's vocabulary.
        mbart: Name in mBART-50's vocabulary; empty where it does not have it.
        marian: Codes that multilingual Marian models know it by, the likelier first.
        letters: Ranges of its letters, where they tell it from English.
        has_spaces: Whether spaces stand between its sentences.
    """

    code: str
    name: str
    flores: str
    mbart: str
    marian: tuple[str, ...]
    letters: tuple[tuple[str, str], ...] = ()
    has_spaces: bool = True


LANGUAGES = {
    language.code: language
    for language in (
        Language("ar", "Arabic", "arb_Arab", "ar_AR", ("ara", "arb"), _ARABIC),
        Language("bg", "Bulgarian", "bul_Cyrl", "", ("bul",), _CYRILLIC),
        Language("bn", "Bengali", "ben_Beng", "bn_IN", ("ben",), (("\u0980", "\u09ff"),)),
        Language("cs", "Czech", "ces_Latn", "cs_CZ", ("ces",)),
        Language("da", "Danish", "dan_Latn", "", ("dan",)),
        Language("de", "German", "deu_Latn", "de_DE", ("deu",)),
        Language("el", "Greek", "ell_Grek", "", ("ell",), (("\u0370", "\u03ff"),)),
        Language("en", "English", "eng_Latn", "en_XX", ("eng",)),
        Language("es", "Spanish", "spa_Latn", "es_XX", ("spa",)),
        Language("et", "Estonian", "est_Latn", "et_EE", ("est",)),
        Language("fa", "Persian", "pes_Arab", "fa_IR", ("fas", "pes"), _ARABIC),
        Language("fi", "Finnish", "fin_Latn", "fi_FI", ("fin",)),
        Language("fr", "French", "fra_Latn", "fr_XX", ("fra",)),
        Language("he", "Hebrew", "heb_Hebr", "he_IL", ("heb",), (("\u0590", "\u05ff"),)),
        Language("hi", "Hindi", "hin_Deva", "hi_IN", ("hin",), (("\u0900", "\u097f"),)),
        Language("hu", "Hungarian", "hun_Latn", "", ("hun",)),
        Language("id", "Indonesian", "ind_Latn", "id_ID", ("ind",)),
        Language("it", "Italian", "ita_Latn", "it_IT", ("ita",)),
        Language("ja", "Japanese", "jpn_Jpan", "ja_XX", ("jpn",), (("\u3040", "\u30ff"), *_HAN), has_spaces=False),
        Language("ko", "Korean", "kor_Hang", "ko_KR", ("kor",), (("\uac00", "\ud7a3"),)),
        Language("lt", "Lithuanian", "lit_Latn", "lt_LT", ("lit",)),
        Language("lv", "Latvian", "lvs_Latn", "lv_LV", ("lav",)),
        Language("ms", "Malay", "zsm_Latn", "", ("zsm", "msa")),
        Language("nl", "Dutch", "nld_Latn", "nl_XX", ("nld",)),
        Language("no", "Norwegian", "nob_Latn", "", ("nob",)),
        Language("pl", "Polish", "pol_Latn", "pl_PL", ("pol",)),
        Language("pt", "Portuguese", "por_Latn", "pt_XX", ("por",)),
        Language("ro", "Romanian", "ron_Latn", "ro_RO", ("ron",)),
        Language("ru", "Russian", "rus_Cyrl", "ru_RU", ("rus",), _CYRILLIC),
        Language("sv", "Swedish", "swe_Latn", "sv_SE", ("swe",)),
        Language("sw", "Swahili", "swh_Latn", "sw_KE", ("swh", "swa")),
        Language("ta", "Tamil", "tam_Taml", "ta_IN", ("tam",), (("\u0b80", "\u0bff"),)),
        Language("th", "Thai", "tha_Thai", "th_TH", ("tha",), (("\u0e00", "\u0e7f"),), has_spaces=False),
        Language("tr", "Turkish", "tur_Latn", "tr_TR", ("tur",)),
        Language("uk", "Ukrainian", "ukr_Cyrl", "uk_UA", ("ukr",), _CYRILLIC),
        Language("ur", "Urdu", "urd_Arab", "ur_PK", ("urd",), _ARABIC),
        Language("vi", "Vietnamese", "vie_Latn", "vi_VN", ("vie",)),
        Language(
            "zh", "Chinese", "zho_Hans", "zh_CN", ("cmn_Hans", "zho_Hans", "zho", "zh", "cmn"), _HAN, has_spaces=False
        ),
    )
}


def find_language(code: str) -> Language:
    """A language by its code.

    Raises:
        DataError: It is not known.
    """
    if code not in LANGUAGES:
        raise DataError(unknown_name("language", code, LANGUAGES))
    return LANGUAGES[code]


def marian_prefix(language: Language, supported: Collection[str]) -> str:
    """What a Marian model of several target languages wants before a text; empty for a model of one.

    Args:
        supported: The tokens of languages in its vocabulary, `>>cmn_Hans<<` and the like.

    Raises:
        DataError: The model does not know the language.
    """
    if not supported:
        return ""
    for code in (*language.marian, language.code):
        if f">>{code}<<" in supported:
            return f">>{code}<< "
    raise DataError(f"the model does not translate to {language.name}: {', '.join(sorted(supported)[:12])}")
