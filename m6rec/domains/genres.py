"""Words for the genres of films, books and games, in English, Spanish and Chinese, by which they are asked for."""

GENRES = tuple(
    tuple(line.split(", "))
    for line in (
        "comedy, funny, hilarious, humorous, humor, humour, laugh, silly, light-hearted, comedia, cómica, 喜剧, 搞笑",
        "horror, scary, frightening, creepy, spooky, terrifying, gory, scared, terror, miedo, 恐怖",
        "romance, romantic, love story, chick flick, amor, romántica, romántico, 爱情, 浪漫",
        "sci-fi, science fiction, scifi, science-fiction, sci fi, futuristic, ciencia ficción, 科幻",
        "thriller, suspense, suspenseful, thrilling, suspenso, intriga, 惊悚",
        "animation, animated, cartoon, animación, animada, dibujos animados, 动画",
        "children, kid, family, child, niño, infantil, 儿童, 孩子",
        "action, action-packed, acción, 动作",
        "adventure, adventurous, aventura, 冒险",
        "documentary, nonfiction, non-fiction, documental, 纪录",
        "film-noir, film noir, noir, cine negro, 黑色电影",
        "musical, singing, musicales, 歌舞, 音乐",
        "war, military, guerra, bélica, 战争",
        "western, cowboy, oeste, vaquero, 西部",
        "mystery, whodunit, detective, misterio, 悬疑",
        "crime, gangster, mafia, heist, crimen, policíaca, 犯罪",
        "drama, dramatic, dramática, 剧情",
        "fantasy, magical, fantasía, 奇幻",
        "biography, biopic, biographical, biografía, 传记",
    )
)
"""Words that ask for one genre; they count where a catalogue has a category of that name."""
