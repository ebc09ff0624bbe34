// The words of the view where one talks and where texts are made, in each language.

const en = {
    conversation: "Conversation",
    help: "Ask for something, say what you like or don't, ask why. Titles are always those of items.",
    say: "Your message",
    send: "Send",
    stop: "Stop",
    clear: "Start again",
    you: "You",
    reply: "m6rec",
    writes: "is writing…",
    cut: "It was stopped.",
    example: "Something like what I liked lately",
    reasons: "Why",

    create: "Create",
    createHelp: "A text for this user. What is too long, offensive, personal or not borne out is refused.",
    needsUser: "Pick a user first: a text is made from their history.",
    kind: "Make",
    kinds: { design: "a title of a product", query: "a search", headline: "copy for an item" },
    category: "Category (the model chooses by default)",
    catalogue: "Only what the catalogue has",
    item: "Item",
    pickItem: "Find the item by title or id",
    count: "Texts",
    make: "Make",
    making: "It is being written…",
    byModel: "by the model",
    byTemplate: "by a template",
    refused: "Refused before it:",
    times: (why: string, times: number) => (times > 1 ? `${why} (${times} times)` : why),
};

export type ChatWords = typeof en;

const zh: ChatWords = {
    conversation: "对话",
    help: "提出需求，说说喜欢或不喜欢什么，也可以问为什么。出现的标题都是真实物品。",
    say: "你的消息",
    send: "发送",
    stop: "停止",
    clear: "重新开始",
    you: "你",
    reply: "m6rec",
    writes: "正在输入…",
    cut: "已停止。",
    example: "推荐些我最近喜欢的那类",
    reasons: "理由",

    create: "生成",
    createHelp: "为此用户生成一段文本。过长、冒犯、涉及隐私或没有依据的会被拒绝。",
    needsUser: "请先选择用户：文本依据其历史生成。",
    kind: "生成",
    kinds: { design: "产品标题", query: "搜索词", headline: "物品文案" },
    category: "类别（默认由模型选择）",
    catalogue: "仅限目录中已有的",
    item: "物品",
    pickItem: "按标题或编号查找物品",
    count: "数量",
    make: "生成",
    making: "正在生成…",
    byModel: "由模型生成",
    byTemplate: "由模板生成",
    refused: "此前被拒绝：",
    times: (why, times) => (times > 1 ? `${why}（${times} 次）` : why),
};

export const chatWords = { en, zh };
