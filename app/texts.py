"""Every word of the page, in English and Chinese.

from app.texts import TEXTS; TEXTS["zh"].new
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Texts:
    language: str
    other: str  # the other language, in its own words
    other_path: str
    tagline: str
    welcome: str
    welcome_more: str
    new: str
    conversations: str
    untitled: str
    this_conversation: str
    title: str
    rename: str
    delete: str
    really_delete: str
    keep: str
    placeholder: str
    mode: str
    modes: tuple[str, str, str]  # auto, draw, talk
    settings: str
    seed: str
    seeds: str
    seeds_info: str
    seed_policies: tuple[str, str, str]  # inherit, lock, vary
    reroll: str
    size: str
    shapes: tuple[str, str, str]  # of a size
    steps: str
    guidance: str
    guidance_info: str
    style: str
    style_info: str
    as_said: str
    style_names: Mapping[str, str]  # of the built-in profiles; others are called as in theirs
    retry: str
    undo: str
    reword: str
    send: str
    cancel: str
    older: str
    newer: str
    redraw: str
    redraw_info: str
    redraw_send: str
    vary: str
    vary_info: str
    from_here: str
    from_here_info: str
    others: tuple[str, str]  # one picture, several
    choose: str
    later: str
    show_later: str
    refined: str
    changed: str
    unchanged: str
    thinking: str
    waiting: str
    ahead: tuple[str, str]  # one picture, several
    painting: str
    warming: str
    slower: str
    gone: str
    failed_start: str
    to_draw: str
    should_draw: str
    should_talk: str
    draw_it: str
    draw_it_info: str
    theme: str
    deleted: str
    you: str
    export: str
    import_: str
    imported: str
    exported_without: str
    search: str
    nothing_found: str
    gallery: str
    search_pictures: str
    no_pictures: str
    no_such_picture: str
    newer_page: str
    older_page: str
    previous: str
    next: str
    back: str
    close: str
    open_conversation: str
    download: str
    date: str
    conversation: str
    improve: str
    improve_path: str
    compare: str
    compare_info: str
    compare_sides: tuple[str, str]  # left, right
    divider: str
    uploaded: str
    consistency: str
    as_asked: str
    estimate: str
    score_info: str
    examples: tuple[str, ...]

    def size_name(self, size: str) -> str:
        """ "256x192" as it is called: "256×192 landscape"."""
        width, height = map(int, size.split("x"))
        square, landscape, portrait = self.shapes
        return f"{width}×{height} {square if width == height else landscape if width > height else portrait}"


TEXTS = {
    "en": Texts(
        language="en",
        other="中文",
        other_path="/zh/",
        tagline="pictures, made and changed by talking",
        welcome="What shall we draw?",
        welcome_more='Describe a picture, then change it: "give it a scarf", "now at night", "as a watercolour".',
        new="New conversation",
        conversations="Conversations",
        untitled="Untitled",
        this_conversation="Rename, export or delete",
        title="Title",
        rename="Rename",
        delete="Delete",
        really_delete="Really delete",
        keep="Keep it",
        placeholder="Describe a picture, or say what to change…",
        mode="Reply",
        modes=("Auto", "Draw", "Talk"),
        settings="Seed and settings",
        seed="Seed",
        seeds="Seed of the next picture",
        seeds_info="Follow: a branch goes on with its picture's seed, a retry rolls a new one. Lock: always this one."
        " Vary: a new one each time; a change still starts from the picture before.",
        seed_policies=("Follow", "🔒 Lock", "Vary"),
        reroll="Roll a new seed",
        size="Size",
        shapes=("square", "landscape", "portrait"),
        steps="Steps",
        guidance="Guidance",
        guidance_info="How closely the picture follows the prompt",
        style="Style",
        style_info="Of the pictures from here on, unless you ask for another",
        as_said="As you say",
        style_names={
            "watercolour": "Watercolour",
            "pencil": "Pencil",
            "pixel art": "Pixel art",
            "paper cut": "Paper cut",
            "photo": "Photo",
            "ink wash": "Ink wash",
            "oil": "Oil",
            "anime": "Anime",
        },
        retry="Retry",
        undo="Undo",
        reword="Edit this message and send it again",
        send="Send",
        cancel="Cancel",
        older="Older branch",
        newer="Newer branch",
        redraw="Edit prompt",
        redraw_info="Edit the refined prompt and draw again",
        redraw_send="Draw",
        vary="Variations",
        vary_info="Four more pictures of this prompt, with other seeds",
        from_here="Edit from here",
        from_here_info="The next message changes this picture; later turns are kept",
        others=("One more: choose it to go on with it", "{} more: choose one to go on with"),
        choose="Go on with picture {}",
        later="The next message goes on from here. Later turns are kept.",
        show_later="Show them",
        refined="Refined prompt",
        changed="changed words are marked",
        unchanged="same as before",
        thinking="Thinking",
        waiting="Getting the brushes ready",
        ahead=("One picture before yours", "{} pictures before yours"),
        painting="Painting",
        warming="Warming up: the models are starting. You can write already; the answer comes when they are ready.",
        slower="There is no vLLM here: transformers runs the dialog model. Many users at once wait longer.",
        gone="Easel cannot be reached. Is it still running?",
        failed_start="A model could not be started.",
        to_draw="sure to draw",
        should_draw="Should have drawn",
        should_talk="Should have talked",
        draw_it="Draw it",
        draw_it_info="Answer this message with a picture instead",
        theme="Light or dark",
        deleted="The conversation was deleted.",
        you="You",
        export="Export",
        import_="Import",
        imported="Imported:",
        exported_without="Pictures that are lost, and not in the file:",
        search="Search conversations",
        nothing_found="No conversation holds these words.",
        gallery="Gallery",
        search_pictures="Search by prompt",
        no_pictures="No pictures yet. Ask for one in the chat.",
        no_such_picture="No picture's prompt holds these words.",
        newer_page="Newer",
        older_page="Older",
        previous="Previous",
        next="Next",
        back="All pictures",
        close="Close",
        open_conversation="Open in its conversation",
        download="Download",
        date="Drawn",
        conversation="Conversation",
        improve="Improve",
        improve_path="/improve/",
        compare="Compare",
        compare_info="This picture beside any other, with a slider",
        compare_sides=("Left picture", "Right picture"),
        divider="How much of the left picture is shown",
        uploaded="Uploaded picture",
        consistency="{} like the picture before",
        as_asked="{} of {} things of the prompt seen",
        estimate="(estimate)",
        score_info="Estimated by a small recogniser that looks at the picture; a hint, not a judgement",
        examples=(
            "Draw a red fox in the snow",
            "A small blue rocket in space, paper cut",
            "Paint a panda with a yellow umbrella in the rain",
            "Hello, who are you?",
        ),
    ),
    "zh": Texts(
        language="zh",
        other="English",
        other_path="/?lang=en",
        tagline="聊着天，就把画画好、改好",
        welcome="想画点什么？",
        welcome_more="先描述一幅画，再随心修改：“给它围条围巾”“改成夜晚”“换成水彩风格”。",
        new="新对话",
        conversations="对话列表",
        untitled="未命名",
        this_conversation="重命名、导出或删除",
        title="标题",
        rename="重命名",
        delete="删除",
        really_delete="确认删除",
        keep="保留",
        placeholder="描述一幅画，或者说说怎么改……",
        mode="回复方式",
        modes=("自动", "画画", "聊天"),
        settings="种子与设置",
        seed="种子",
        seeds="下一幅画的种子",
        seeds_info="跟随：分支沿用其画面的种子，重试时换新；锁定：始终用这一个；变化：每次换新，但修改仍从上一幅画开始。",
        seed_policies=("跟随", "🔒 锁定", "变化"),
        reroll="换一个种子",
        size="尺寸",
        shapes=("方形", "横幅", "竖幅"),
        steps="步数",
        guidance="引导强度",
        guidance_info="画面遵循提示词的程度",
        style="风格",
        style_info="之后的画都用它，除非你另外说明",
        as_said="按你说的",
        style_names={
            "watercolour": "水彩",
            "pencil": "铅笔",
            "pixel art": "像素",
            "paper cut": "剪纸",
            "photo": "照片",
            "ink wash": "水墨",
            "oil": "油画",
            "anime": "动漫",
        },
        retry="重试",
        undo="撤销",
        reword="修改这条消息并重新发送",
        send="发送",
        cancel="取消",
        older="较早的分支",
        newer="较新的分支",
        redraw="改提示词",
        redraw_info="修改绘图提示词并重画",
        redraw_send="重画",
        vary="换几幅",
        vary_info="用其他种子再画四幅",
        from_here="从这里改",
        from_here_info="下一条消息将修改这幅画，之后的对话会保留",
        others=("还有 1 幅：点选即可用它继续", "还有 {} 幅：点选一幅继续"),
        choose="用第 {} 幅继续",
        later="下一条消息将从这里继续，之后的对话已保留。",
        show_later="查看",
        refined="绘图提示词",
        changed="已标出改动之处",
        unchanged="与上一幅相同",
        thinking="思考中",
        waiting="正在准备画笔",
        ahead=("前面还有 1 幅画", "前面还有 {} 幅画"),
        painting="绘制中",
        warming="正在预热：模型启动中。现在就可以输入，准备好后会立即回答。",
        slower="这里没有 vLLM，由 transformers 运行对话模型，很多人同时使用时会慢一些。",
        gone="无法连接 Easel，它还在运行吗？",
        failed_start="模型无法启动。",
        to_draw="决定画画",
        should_draw="应该画画",
        should_talk="应该聊天",
        draw_it="画出来",
        draw_it_info="改用一幅画来回答这条消息",
        theme="浅色／深色",
        deleted="对话已删除。",
        you="你",
        export="导出",
        import_="导入",
        imported="已导入：",
        exported_without="已丢失、未能导出的图片数：",
        search="搜索对话",
        nothing_found="没有包含这些词的对话。",
        gallery="画廊",
        search_pictures="按提示词搜索",
        no_pictures="还没有画。在对话里说想画什么吧。",
        no_such_picture="没有提示词包含这些词的画。",
        newer_page="较新",
        older_page="较早",
        previous="上一幅",
        next="下一幅",
        back="全部图片",
        close="关闭",
        open_conversation="在对话中打开",
        download="下载",
        date="绘制时间",
        conversation="对话",
        improve="改进",
        improve_path="/zh/improve/",
        compare="对比",
        compare_info="用滑块与任意一幅画对比",
        compare_sides=("左图", "右图"),
        divider="左图显示的比例",
        uploaded="上传的图片",
        consistency="与上一幅 {} 一致",
        as_asked="提示词中的 {1} 项已见 {0} 项",
        estimate="（估计）",
        score_info="由一个小型识别模型看图估计，仅供参考",
        examples=(
            "画一只雪地里的红色狐狸",
            "太空里的一枚蓝色小火箭，剪纸风格",
            "画一只在雨中撑黄伞的熊猫",
            "你好，你是谁？",
        ),
    ),
}


@dataclass(frozen=True)
class PeopleTexts:
    """Of the pages for signing in, for one's account, and for administrators (people.py)."""

    language: str
    other: str
    other_language: str
    sign_in: str
    sign_in_more: str
    name: str
    password: str
    wrong: str
    too_many: str
    sign_out: str
    ended: str
    to_chat: str
    account: str
    admin: str
    usage: str  # pictures, MB, MB that there are
    change_password: str
    old_password: str
    new_password: str
    wrong_old: str
    password_changed: str
    api_keys: str
    api_keys_more: str
    key_name: str
    make_key: str
    key_made: str
    used: str
    never: str
    delete: str
    everywhere: str
    everywhere_more: str
    users: str
    administrator: str
    conversations: str
    pictures: str
    seen: str
    per_minute: str
    room: str
    save: str
    saved: str
    add_user: str
    added: str
    queue: str
    under_way: str  # turns, drawings
    models: str
    disk: str
    disk_more: str  # MB of the data folder, GB free, the folder


PEOPLE = {
    "en": PeopleTexts(
        language="en",
        other="中文",
        other_language="zh",
        sign_in="Sign in",
        sign_in_more="Your conversations and pictures are yours alone.",
        name="Name",
        password="Password",
        wrong="The name or the password is wrong.",
        too_many="Too many tries. Wait {} seconds, then try again.",
        sign_out="Sign out",
        ended="You are signed out. Copy what you have written, then reload the page to sign in.",
        to_chat="To the chat",
        account="Account",
        admin="Administration",
        usage="Pictures: {:,}. Room: {:,.1f} of {:,} MB",
        change_password="Change password",
        old_password="Password so far",
        new_password="New password (8 characters or more)",
        wrong_old="The password so far is wrong.",
        password_changed="The password is changed, and every other browser is signed out.",
        api_keys="API keys",
        api_keys_more="A program with a key draws and talks in your name, and sees your pictures alone.",
        key_name="What is the key for?",
        make_key="Make a key",
        key_made="Copy this key now. It is not shown again:",
        used="Last used",
        never="never",
        delete="Delete",
        everywhere="Sign out everywhere",
        everywhere_more="Ends every session, this one too. API keys stay.",
        users="Users",
        administrator="administrator",
        conversations="Conversations",
        pictures="Pictures",
        seen="Last here",
        per_minute="Turns a minute",
        room="MB of pictures",
        save="Save",
        saved="Saved.",
        add_user="Add a user",
        added="Added: {}",
        queue="Queue",
        under_way="Turns of the page under way: {}. Drawings that wait or are drawn: {}",
        models="Models",
        disk="Disk",
        disk_more="{:,.1f} MB in the data folder, {:,.1f} GB free",
    ),
    "zh": PeopleTexts(
        language="zh",
        other="English",
        other_language="en",
        sign_in="登录",
        sign_in_more="你的对话和图片只有你自己能看到。",
        name="用户名",
        password="密码",
        wrong="用户名或密码不正确。",
        too_many="尝试次数过多，请等待 {} 秒后再试。",
        sign_out="退出登录",
        ended="你已退出登录。请先复制已输入的内容，再刷新页面重新登录。",
        to_chat="返回聊天",
        account="账户",
        admin="管理",
        usage="图片：{:,} 幅。空间：已用 {:,.1f} / {:,} MB",
        change_password="修改密码",
        old_password="当前密码",
        new_password="新密码（至少 8 个字符）",
        wrong_old="当前密码不正确。",
        password_changed="密码已修改，其他浏览器均已退出登录。",
        api_keys="API 密钥",
        api_keys_more="持有密钥的程序以你的名义画画和聊天，且只能看到你的图片。",
        key_name="这个密钥的用途",
        make_key="创建密钥",
        key_made="请立即复制此密钥，它不会再次显示：",
        used="最近使用",
        never="从未",
        delete="删除",
        everywhere="在所有设备上退出",
        everywhere_more="结束所有会话，包括当前会话。API 密钥保留。",
        users="用户",
        administrator="管理员",
        conversations="对话",
        pictures="图片",
        seen="最近访问",
        per_minute="每分钟轮数",
        room="图片空间（MB）",
        save="保存",
        saved="已保存。",
        add_user="添加用户",
        added="已添加：{}",
        queue="队列",
        under_way="页面上进行中的对话轮：{}。等待或绘制中的图片：{}",
        models="模型",
        disk="磁盘",
        disk_more="数据文件夹 {:,.1f} MB，剩余 {:,.1f} GB",
    ),
}
