"""Words for the genres of films, books and games, by which their categories are asked for."""

GENRES = tuple(
    tuple(line.split(", "))
    for line in (
        "comedy, funny, hilarious, humorous, humor, humour, laugh, silly, light-hearted",
        "horror, scary, frightening, creepy, spooky, terrifying, gory",
        "romance, romantic, love story, chick flick",
        "sci-fi, science fiction, scifi, science-fiction, sci fi, futuristic",
        "thriller, suspense, suspenseful, thrilling",
        "animation, animated, cartoon",
        "children, kid, family, child",
        "action, action-packed",
        "adventure, adventurous",
        "documentary, nonfiction, non-fiction",
        "film-noir, film noir, noir",
        "musical, singing",
        "war, military",
        "western, cowboy",
        "mystery, whodunit, detective",
        "crime, gangster, mafia, heist",
        "drama, dramatic",
        "fantasy, magical",
        "biography, biopic, biographical",
    )
)
"""Words that ask for one genre; they count where a catalogue has a category of that name."""
