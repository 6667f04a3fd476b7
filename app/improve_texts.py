"""Every word of the Improve page, in English and Chinese.

from app.improve_texts import IMPROVE_TEXTS; IMPROVE_TEXTS["zh"].start
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class ImproveTexts:
    title: str
    lead: str
    back: str
    back_path: str
    other_path: str
    feedback: str
    kinds: dict[str, str]  # of ratings, and "edited"
    no_feedback: str
    unavailable: dict[str, str]
    learn: str
    learn_info: str
    start: str
    size: str
    minutes: str
    minutes_info: str
    replay: str
    replay_info: str
    held_out: str
    held_out_info: str
    stages: dict[str, str]
    states: dict[str, str]
    stop: str
    resume: str
    discard: str
    really_discard: str
    keep: str
    use: str  # {version}
    use_anyway: str
    loss: str
    validation_loss: str
    minutes_axis: str
    steps: str  # {steps}, {minutes}
    before_after: str
    on_held_out: str
    on_feedback: str
    on_feedback_info: str
    measure: str
    turns: str
    measures: dict[str, str]
    verdicts: dict[str, str]
    found: dict[str, str]  # of the whole: better, worse, same
    interval: str
    versions: str
    original: str
    active: str
    made: str
    learnt_from: str
    records: str  # {n}
    not_measured: str
    choose: str
    activate: str
    remove: str
    try_out: str
    trying: str  # {share}
    end_trial: str  # {name}
    opinions: str
    replies: str  # {n}
    now_tried: str  # {name}
    trial_ended: str
    roll_back: str  # {name}
    nothing_before: str
    now_active: str  # {name}
    removed: str  # {name}


IMPROVE_TEXTS = {
    "en": ImproveTexts(
        title="Improve",
        lead="Let the dialog model learn from what you thought of its replies. It is measured before and after, and "
        "you decide which one answers.",
        back="Back to the chat",
        back_path="/",
        other_path="/zh/improve/",
        feedback="Feedback",
        kinds={
            "like": "Liked",
            "dislike": "Disliked",
            "should_draw": "Should have drawn",
            "should_talk": "Should have talked",
            "edited": "Prompts put right",
        },
        no_feedback="There is none yet. Rate replies in the chat (the thumbs and the flag beside them), or edit a "
        "refined prompt.",
        unavailable={
            "foreign": "The dialog model is served by another program, which this page cannot train. Start Easel "
            "without --mllm-url to use it.",
            "fixed": "This dialog model cannot be trained here. That needs a profile whose `dialog` is a local folder "
            "with a model like the bundled one (Idefics3).",
        },
        learn="Learn from it",
        learn_info="Corrections are made of the feedback and mixed with ordinary dialogues, so that nothing is "
        "forgotten. An adapter is trained on both in the background, at low priority; the chat goes on. Nothing "
        "changes for the chat until you say so.",
        start="Start",
        size="How much",
        minutes="Minutes of training",
        minutes_info="At most; building the data and measuring come on top",
        replay="Ordinary dialogues",
        replay_info="Learnt again beside the feedback",
        held_out="Dialogues to measure on",
        held_out_info="More tell smaller differences apart, and take longer",
        stages={
            "feedback": "Feedback becomes corrections",
            "replay": "Ordinary dialogues",
            "finetune": "Training",
            "compare": "Measuring before and after",
        },
        states={
            "running": "Learning…",
            "stopped": "Stopped. It can go on where it was.",
            "interrupted": "Easel was stopped while this ran. It can go on where it was.",
            "failed": "It failed.",
            "measured": "Ready: compare, then decide.",
            "activated": "The last run is in use.",
            "discarded": "The last run was discarded.",
        },
        stop="Stop",
        resume="Resume",
        discard="Discard",
        really_discard="Really discard",
        keep="Cancel",
        use="Use {version}",
        use_anyway="Use it anyway",
        loss="loss",
        validation_loss="on held-out dialogues",
        minutes_axis="min",
        steps="{steps:,} steps, {minutes:.1f} min",
        before_after="Before and after",
        on_held_out="Dialogues that neither has learnt from",
        on_feedback="The feedback itself",
        on_feedback_info="it was learnt from, so this only tells whether it was taken in",
        measure="Measure",
        turns="Turns",
        measures={
            "switch_accuracy": "Draw or talk: decided right",
            "prompt_correct": "Refined prompt right",
            "question_accuracy": "Question about a picture answered right",
            "prompt_exact": "Prompt word for word",
        },
        verdicts={"keep": "better", "throw out": "worse", "no evidence": "no difference found"},
        found={
            "better": "Better, beyond chance, and nowhere worse.",
            "worse": "Worse than before, beyond chance: {measures}. Using it needs a second click.",
            "same": "No difference beyond chance on held-out dialogues.",
        },
        interval="95 % interval; a difference counts where chance alone would give it in less than 5 % of cases "
        "(McNemar's test on the same turns)",
        versions="Versions",
        original="original",
        active="in use",
        made="Made",
        learnt_from="From",
        records="{n} corrections",
        not_measured="not measured",
        choose="Version",
        activate="Use",
        remove="Remove",
        try_out="Try on half of the conversations",
        trying="tried on {share:.0%} of the conversations",
        end_trial="End the trial of {name}",
        opinions="In use",
        replies="{n} replies",
        now_tried="Half of the conversations get {name} from now on.",
        trial_ended="The trial is over.",
        roll_back="Roll back to {name}",
        nothing_before="Nothing to roll back to",
        now_active="{name} answers from now on.",
        removed="{name} was removed.",
    ),
    "zh": ImproveTexts(
        title="改进",
        lead="让对话模型从你对回复的评价中学习。前后都会测量，由你决定用哪一个来回答。",
        back="返回对话",
        back_path="/zh/",
        other_path="/improve/?lang=en",
        feedback="评价",
        kinds={
            "like": "赞",
            "dislike": "踩",
            "should_draw": "应该画画",
            "should_talk": "应该聊天",
            "edited": "改过的提示词",
        },
        no_feedback="还没有评价。请在对话中为回复评分（拇指和旁边的旗帜），或修改绘图提示词。",
        unavailable={
            "foreign": "对话模型由另一个程序提供，本页无法训练它。启动 Easel 时去掉 --mllm-url 即可使用。",
            "fixed": "无法在这里训练这个对话模型。训练需要 dialog 为本地文件夹、且与自带模型同类（Idefics3）的配置。",
        },
        learn="从评价中学习",
        learn_info="评价会变成纠正样本，并与普通对话混合，以免遗忘。适配器在后台以低优先级训练，对话照常进行。"
        "在你决定之前，对话不会有任何变化。",
        start="开始",
        size="规模",
        minutes="训练分钟数",
        minutes_info="上限；准备数据和测量另需时间",
        replay="普通对话数",
        replay_info="与评价一起重新学习",
        held_out="测量用对话数",
        held_out_info="越多越能分辨细小差别，也越慢",
        stages={
            "feedback": "评价变成纠正样本",
            "replay": "普通对话",
            "finetune": "训练",
            "compare": "测量前后差别",
        },
        states={
            "running": "学习中……",
            "stopped": "已停止，可以从停下的地方继续。",
            "interrupted": "运行途中 Easel 被停止，可以从停下的地方继续。",
            "failed": "失败了。",
            "measured": "已完成：比较后再决定。",
            "activated": "上一次的结果正在使用。",
            "discarded": "上一次的结果已丢弃。",
        },
        stop="停止",
        resume="继续",
        discard="丢弃",
        really_discard="确认丢弃",
        keep="取消",
        use="使用 {version}",
        use_anyway="仍然使用",
        loss="损失",
        validation_loss="留出对话上",
        minutes_axis="分钟",
        steps="{steps:,} 步，{minutes:.1f} 分钟",
        before_after="前后对比",
        on_held_out="两者都没有学过的对话",
        on_feedback="评价本身",
        on_feedback_info="这些已经学过，只能说明是否学了进去",
        measure="指标",
        turns="轮数",
        measures={
            "switch_accuracy": "画画或聊天：判断正确",
            "prompt_correct": "绘图提示词正确",
            "question_accuracy": "关于图片的问题回答正确",
            "prompt_exact": "提示词逐字相同",
        },
        verdicts={"keep": "更好", "throw out": "更差", "no evidence": "没有发现差别"},
        found={
            "better": "更好，且超出偶然；没有变差的地方。",
            "worse": "比之前差，且超出偶然：{measures}。使用前需要再次确认。",
            "same": "在留出对话上没有超出偶然的差别。",
        },
        interval="95 % 区间；只有偶然出现的可能低于 5 % 的差别才算数（同一批轮次上的 McNemar 检验）",
        versions="版本",
        original="原版",
        active="使用中",
        made="时间",
        learnt_from="来自",
        records="{n} 个纠正样本",
        not_measured="未测量",
        choose="版本",
        activate="使用",
        remove="删除",
        try_out="在一半对话中试用",
        trying="在 {share:.0%} 的对话中试用",
        end_trial="结束 {name} 的试用",
        opinions="使用情况",
        replies="{n} 条回复",
        now_tried="从现在起一半的对话由 {name} 回答。",
        trial_ended="试用已结束。",
        roll_back="退回 {name}",
        nothing_before="没有可退回的版本",
        now_active="从现在起由 {name} 回答。",
        removed="{name} 已删除。",
    ),
}
