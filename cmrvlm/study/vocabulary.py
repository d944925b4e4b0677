"""Names of sequences, structures, phases, levels, diseases and findings in both languages."""

from __future__ import annotations

from dataclasses import dataclass

from cmrvlm.study.structures import STRUCTURE_TABLE

LANGUAGES = ("en", "zh")
SEQUENCES = ("sax", "lax_4ch", "lge")
# Sequences with frames over the cardiac cycle.
CINE = ("sax", "lax_4ch")
PHASES = ("ed", "es")
LEVELS = ("basal", "mid", "apical")
REPORT_SECTIONS = ("structure", "function", "lge", "other", "impression")

# Structure to its value in masks.
STRUCTURES = {"background": 0} | {
    name: structure.value for name, structure in STRUCTURE_TABLE.items()
}
NOT_ANNOTATED = 255


@dataclass(frozen=True)
class Term:
    """A named concept: its code and what it is called in both languages.

    Attributes:
        code: The name used in code, configs and files.
        en: English name.
        zh: Chinese name.
        synonyms: Other names, either language, that mean the same; read by answer parsing and leak
            checks.
    """

    code: str
    en: str
    zh: str
    synonyms: tuple[str, ...] = ()

    def name(self, language: str) -> str:
        """Return the name in `language` (`en` or `zh`)."""
        return self.zh if language == "zh" else self.en


def _table(*terms: Term) -> dict[str, Term]:
    """Return a table of terms by code."""
    return {term.code: term for term in terms}


SEQUENCE_TERMS = _table(
    Term("sax", "short-axis cine", "短轴电影", ("SAX", "short-axis view", "短轴切面")),
    Term(
        "lax_4ch",
        "four-chamber cine",
        "四腔心电影",
        ("4CH", "four-chamber view", "四腔电影", "四腔心切面"),
    ),
    Term("lge", "late gadolinium enhancement", "延迟强化", ("LGE", "钆延迟增强")),
)
PHASE_TERMS = _table(
    Term("ed", "end-diastole", "舒张末期", ("ED", "end-diastolic")),
    Term("es", "end-systole", "收缩末期", ("ES", "end-systolic")),
)
LEVEL_TERMS = _table(
    Term("basal", "basal", "基底部", ("base",)),
    Term("mid", "mid-ventricular", "中间部", ("mid",)),
    Term("apical", "apical", "心尖部", ("apex",)),
)
STRUCTURE_TERMS = _table(
    *(Term(one.name, one.en, one.zh, one.synonyms) for one in STRUCTURE_TABLE.values())
)
DISEASES = _table(
    Term("DCM", "dilated cardiomyopathy", "扩张型心肌病", ("DCM",)),
    Term("HCM", "hypertrophic cardiomyopathy", "肥厚型心肌病", ("HCM", "HOCM")),
    Term("MYOC", "myocarditis", "心肌炎"),
    Term("MI", "myocardial infarction", "心肌梗死", ("ischaemic cardiomyopathy", "MINF")),
    Term("HHD", "hypertensive heart disease", "高血压性心脏病", ("HHD",)),
    Term("NOR", "no cardiac disease", "未见心脏疾病", ("normal study", "healthy")),
    Term("CA", "cardiac amyloidosis", "心脏淀粉样变", ("amyloid heart disease",)),
    Term("CSD", "conduction system disease", "传导系统疾病", ("left bundle branch block", "LBBB")),
    Term("LVNC", "left ventricular non-compaction", "左心室致密化不全", ("LVNC", "noncompaction")),
    Term("TTC", "takotsubo cardiomyopathy", "应激性心肌病", ("TTC", "takotsubo")),
    Term("ACM", "arrhythmogenic cardiomyopathy", "致心律失常性心肌病", ("ARVC", "ACM", "ARVD")),
    Term("PERI", "pericarditis", "心包炎"),
    Term("PH", "pulmonary hypertension", "肺动脉高压"),
    Term("VHD", "valvular heart disease", "心脏瓣膜病", ("VHD",)),
    Term("CHD", "congenital heart disease", "先天性心脏病", ("congenital defect",)),
    Term("TUM", "cardiac tumour", "心脏肿瘤", ("cardiac tumor", "cardiac mass")),
)
FINDINGS = _table(
    Term("lvedd", "LV end-diastolic diameter", "左心室舒张末径"),
    Term("la_diameter", "left atrial diameter", "左心房径"),
    Term("rvedd", "RV end-diastolic diameter", "右心室舒张末径"),
    Term("ra_diameter", "right atrial diameter", "右心房径"),
    Term("wall_thickness", "LV wall thickness", "左心室壁厚度"),
    Term("wall_motion", "LV wall motion", "左心室壁运动"),
    Term("aneurysm", "LV aneurysm", "左心室室壁瘤", ("aneurysm", "室壁瘤")),
    Term("lvef", "LV ejection fraction", "左心室射血分数"),
    Term("lvedv", "LV end-diastolic volume", "左心室舒张末容积"),
    Term("lvesv", "LV end-systolic volume", "左心室收缩末容积"),
    Term("rvef", "RV ejection fraction", "右心室射血分数"),
    Term("rvedv", "RV end-diastolic volume", "右心室舒张末容积"),
    Term("rvesv", "RV end-systolic volume", "右心室收缩末容积"),
    Term("mitral_regurgitation", "mitral regurgitation", "二尖瓣反流"),
    Term("tricuspid_regurgitation", "tricuspid regurgitation", "三尖瓣反流"),
    Term("aortic_regurgitation", "aortic regurgitation", "主动脉瓣反流"),
    Term("lv_lge", "LV late enhancement", "左心室延迟强化"),
    Term("rv_lge", "RV late enhancement", "右心室延迟强化", ("RV enhancement", "右心室强化")),
    Term("pericardial_enhancement", "pericardial enhancement", "心包强化"),
    Term("fatty_infiltration", "fatty infiltration", "脂肪浸润", ("fatty infiltration of the RV",)),
    Term("thrombus", "thrombus", "血栓"),
    Term("pericardial_effusion", "pericardial effusion", "心包积液"),
    Term("pleural_effusion", "pleural effusion", "胸腔积液"),
)
# Finding to the sequences that show it; it is only asked about when one of them is shown.
FINDING_SEQUENCES: dict[str, tuple[str, ...]] = {
    "lvedd": CINE,
    "la_diameter": ("lax_4ch",),
    "rvedd": CINE,
    "ra_diameter": ("lax_4ch",),
    "wall_thickness": ("sax",),
    "wall_motion": CINE,
    "aneurysm": CINE,
    "lvef": ("sax",),
    "lvedv": ("sax",),
    "lvesv": ("sax",),
    "rvef": ("sax",),
    "rvedv": ("sax",),
    "rvesv": ("sax",),
    "mitral_regurgitation": ("lax_4ch",),
    "tricuspid_regurgitation": ("lax_4ch",),
    "aortic_regurgitation": CINE,
    "lv_lge": ("lge",),
    "rv_lge": ("lge",),
    "pericardial_enhancement": ("lge",),
    "fatty_infiltration": CINE,
    "thrombus": ("sax", "lge"),
    "pericardial_effusion": CINE,
    "pleural_effusion": ("sax",),
}
LGE_PATTERNS = _table(
    Term("none", "no late enhancement", "未见延迟强化"),
    Term("subendocardial", "subendocardial enhancement", "心内膜下强化"),
    Term("transmural", "transmural enhancement", "透壁性强化"),
    Term("mid_wall", "mid-wall enhancement", "肌壁间强化"),
    Term("subepicardial", "subepicardial enhancement", "心外膜下强化"),
    Term("insertion_point", "enhancement at the RV insertion points", "右心室插入部强化"),
    Term("diffuse", "diffuse subendocardial enhancement", "弥漫性心内膜下强化"),
    Term("patchy", "patchy enhancement", "斑片状强化"),
)
MOTION_PATTERNS = _table(
    Term("normal", "normal wall motion", "室壁运动正常"),
    Term("global_hypokinesia", "global hypokinesia", "室壁运动普遍减弱"),
    Term("regional_akinesia", "regional akinesia", "节段性室壁运动消失"),
    Term("apical_ballooning", "apical ballooning", "心尖部球形扩张"),
    Term("dyssynchrony", "septal dyssynchrony", "室间隔运动不同步"),
)
# Grades of Lang et al., JASE 2015;28:1-39, without their sex difference of two points.
EF_GRADES = _table(
    Term("normal", "normal ejection fraction", "射血分数正常"),
    Term("mild", "mildly reduced ejection fraction", "射血分数轻度减低"),
    Term("moderate", "moderately reduced ejection fraction", "射血分数中度减低"),
    Term("severe", "severely reduced ejection fraction", "射血分数重度减低"),
)
# Lowest ejection fraction of each grade.
EF_GRADE_LIMITS_PERCENT = {"normal": 52.0, "mild": 41.0, "moderate": 30.0, "severe": float("-inf")}
OTHER_PATTERNS = _table(
    Term("mass", "intracardiac mass", "心腔内占位"),
    Term("septal_defect", "atrial septal defect", "房间隔缺损"),
    Term("hypertrabeculation", "hypertrabeculation of the LV", "左心室肌小梁增多"),
    Term("septal_flattening", "flattened septum", "室间隔变平"),
)
WALL_REGIONS = _table(
    Term("anterior", "anterior wall", "前壁"),
    Term("lateral", "lateral wall", "侧壁"),
    Term("inferior", "inferior wall", "下壁"),
    Term("septal", "septum", "室间隔"),
)
