"""The clients that people have, as they are installed, against a service on a socket."""

import httpx
import numpy as np
import pytest

from tests import running
from tests.fake import FakeBackend

pytestmark = pytest.mark.filterwarnings(
    "ignore::DeprecationWarning", "ignore::pydantic.warnings.PydanticDeprecatedSince20"
)

DOCUMENTS = ["xyz", "snow", "so"]
MESSAGES = [{"role": "user", "content": "Anything funny?"}]


class Heard(FakeBackend):
    """Keeps what it was asked."""

    def chatting(self, chat):
        self.heard = chat
        return super().chatting(chat)

    def reranking(self, query, documents):
        self.read = (query, documents)
        return super().reranking(query, documents)

    def embedding(self, texts):
        self.read = texts
        return super().embedding(texts)


@pytest.fixture(scope="module")
def service():
    backend = Heard()
    with running.service(backend) as url, running.http(url) as http:
        yield backend, url, http


@pytest.fixture(scope="module")
def openai(service):
    module = pytest.importorskip("openai")
    with module.OpenAI(base_url=f"{service[1]}/v1", api_key="any", max_retries=0) as client:
        yield client


@pytest.fixture
def plain():
    """Connections that are closed at the end, as the libraries leave that to the garbage collector."""
    with httpx.Client(timeout=20) as client:
        yield client


def refusal(answer: httpx.Response) -> str:
    """Why a body was refused, which is one sentence."""
    assert answer.status_code == 422, answer.text
    message = answer.json()["error"]["message"]
    assert "\n" not in message
    assert len(message) < 250
    assert "Value error" not in message
    assert "Input should" not in message
    return message


# OpenAI


def test_openai_chats(openai, service):
    reply = openai.chat.completions.create(
        model="gpt-4o",
        messages=[
            {"role": "developer", "content": "Be brief."},
            {"role": "user", "content": "Hi", "name": "Ann"},
            {
                "role": "assistant",
                "content": None,
                "tool_calls": [{"id": "1", "type": "function", "function": {"name": "find", "arguments": "{}"}}],
            },
            {"role": "tool", "tool_call_id": "1", "content": "nothing"},
            {"role": "user", "content": [{"type": "text", "text": "Anything"}, {"type": "text", "text": "funny?"}]},
        ],
        presence_penalty=0,
        frequency_penalty=0,
        logit_bias={},
        logprobs=False,
        response_format={"type": "text"},
        tools=[{"type": "function", "function": {"name": "find", "parameters": {"type": "object", "properties": {}}}}],
        tool_choice="auto",
        parallel_tool_calls=True,
        store=False,
        metadata={"a": "b"},
        service_tier="auto",
        reasoning_effort="low",
        max_tokens=4096,
        max_completion_tokens=100_000,
        temperature=1,
        top_p=0,
        seed=-1,
        n=1,
        stop=["", "END"],
        user="u0",
        safety_identifier="x",
        prompt_cache_key="y",
    )
    assert reply.choices[0].message.content == 'How about "Film 0"?'
    assert reply.choices[0].finish_reason == "stop"
    assert reply.usage.total_tokens > 0
    heard = service[0].heard
    assert [one.role for one in heard.messages] == ["system", "user", "assistant", "system", "user"]
    assert heard.messages[-1].text == "Anything\nfunny?"
    assert (heard.max_tokens, heard.user, heard.stops) == (512, "u0", ("END",))


def test_openai_streams(openai):
    options = {"include_usage": True, "include_obfuscation": False}
    chunks = list(openai.chat.completions.create(model="m", messages=MESSAGES, stream=True, stream_options=options))
    said = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert said == 'How about "Film 0"?'
    assert chunks[-1].usage.total_tokens > 0
    assert [chunk.choices[0].finish_reason for chunk in chunks if chunk.choices][-1] == "stop"


def test_openai_embeds(openai, service):
    answer = openai.embeddings.create(model="text-embedding-3-small", input=["a", "bcd"], user="u0")
    assert [len(one.embedding) for one in answer.data] == [128, 128]
    numbers = openai.embeddings.create(model="m", input="bcd", encoding_format="float", dimensions=256)
    np.testing.assert_allclose(numbers.data[0].embedding, answer.data[1].embedding, rtol=1e-6)
    openai.embeddings.create(model="m", input="x" * 5000)
    assert [len(text) for text in service[0].read] == [4000]
    assert len(openai.embeddings.create(model="m", input=["x"] * 2048).data) == 2048


def test_openai_finds_the_model(openai):
    module = pytest.importorskip("openai")
    assert [model.id for model in openai.models.list()] == ["m6rec"]
    assert openai.models.retrieve("m6rec").id == "m6rec"
    with pytest.raises(module.NotFoundError, match="'m6rec'"):
        openai.models.retrieve("gpt-4o")


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"response_format": {"type": "json_object"}}, "response_format asks for 'json_object'"),
        ({"response_format": {"type": "json_schema", "json_schema": {}}}, "response_format asks for 'json_schema'"),
        ({"n": 2}, "n is 2"),
        ({"logprobs": True}, "logprobs"),
        ({"top_logprobs": 5}, "top_logprobs"),
        ({"tool_choice": "required"}, "tool_choice"),
        ({"tool_choice": {"type": "function", "function": {"name": "f"}}}, "tool_choice"),
        ({"modalities": ["audio"]}, "modalities"),
        ({"messages": []}, "messages"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}]}, "'image_url'"),
        ({"messages": [{"role": "me", "content": "x"}]}, "role"),
        ({"messages": [{"role": "user", "content": 3}]}, "messages[0].content"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_tokens": "many"}, "max_tokens is the text 'many'"),
        ({"temperature": "hot"}, "temperature"),
        ({"stop": ["x"] * 17}, "stop is a list of 17"),
        ({"stream": "yes"}, "stream"),
        ({"user": "u" * 201}, "user has 201 characters"),
    ],
)
def test_what_a_chat_can_not_do_is_named(service, wrong, said):
    body = {"messages": MESSAGES, **wrong}
    assert said in refusal(service[2].post("/v1/chat/completions", json=body))


@pytest.mark.parametrize(
    "more",
    [
        {"anything": {"deep": [1]}},
        {"messages": MESSAGES * 65},
        {"messages": [{"role": "user", "content": "x" * 5000}]},
        {
            "messages": [
                {"role": "user", "content": [{"type": "text", "text": ""}, {"type": "refusal", "refusal": "no"}]}
            ]
        },
        {"messages": [{"role": "function", "name": "f", "content": None}]},
        {"temperature": 3.5, "top_p": 7},
        {"n": None, "stop": None, "user": None, "max_tokens": None, "seed": None, "stream": None, "model": None},
        {"model": "x" * 300, "stop": "END", "function_call": "none", "modalities": ["text"], "tool_choice": "none"},
        {"frequency_penalty": 0.5, "reasoning": {"effort": "low"}, "extra_body": None},
    ],
)
def test_what_is_neutral_or_too_much_is_read_as_far_as_it_goes(service, more):
    backend, _, http = service
    answer = http.post("/v1/chat/completions", json={"messages": MESSAGES, **more})
    assert answer.status_code == 200, answer.text
    assert len(backend.heard.messages) <= 64
    assert all(len(one.text) <= 4000 for one in backend.heard.messages)
    assert backend.heard.temperature <= 2
    assert 0 < backend.heard.top_p <= 1


def test_of_a_long_conversation_the_latest_messages_are_read(service):
    backend, _, http = service
    messages = [{"role": "user", "content": str(number)} for number in range(100)]
    assert http.post("/v1/chat/completions", json={"messages": messages}).status_code == 200
    assert [one.text for one in backend.heard.messages] == [str(number) for number in range(36, 100)]


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"input": [1, 2, 3]}, "check_embedding_ctx_length=False"),
        ({"input": [[1, 2], [3]]}, "check_embedding_ctx_length=False"),
        ({"input": []}, "input is empty"),
        ({"input": ""}, "input holds an empty text"),
        ({"input": ["a", ""]}, "input holds an empty text"),
        ({"input": {"a": 1}}, "input must be a text or a list of texts"),
        ({"input": ["x"] * 2049}, "chunk_size=2048"),
        ({}, "input is missing"),
        ({"input": "x", "dimensions": 64}, "dimensions is 64"),
        ({"input": "x", "encoding_format": "int8"}, "encoding_format"),
    ],
)
def test_texts_that_can_not_be_embedded_are_told_in_a_sentence(service, wrong, said):
    assert said in refusal(service[2].post("/v1/embeddings", json=wrong))


# Cohere


def test_cohere_reranks(service, plain):
    cohere = pytest.importorskip("cohere")
    client = cohere.ClientV2(api_key="any", base_url=service[1], httpx_client=plain)
    answer = client.rerank(
        model="rerank-v3.5", query="snow", documents=DOCUMENTS, top_n=2, max_tokens_per_doc=4096, priority=1
    )
    assert [result.index for result in answer.results] == [1, 2]
    assert answer.results[0].relevance_score == pytest.approx(4 / 5)
    assert answer.meta.api_version.version == "2"
    old = cohere.Client(api_key="any", base_url=service[1], httpx_client=plain)
    answer = old.rerank(
        model="rerank-english-v3.0",
        query="snow",
        documents=[{"title": text, "id": str(n)} for n, text in enumerate(DOCUMENTS)],
        rank_fields=["title"],
        max_chunks_per_doc=10,
        return_documents=True,
    )
    assert answer.results[0].index == 1
    assert service[0].read == ("snow", ["title: xyz", "title: snow", "title: so"])


def test_langchain_reranks_with_cohere(service, plain):
    cohere, module = pytest.importorskip("cohere"), pytest.importorskip("langchain_cohere")
    from langchain_core.documents import Document

    client = cohere.ClientV2(api_key="any", base_url=service[1], httpx_client=plain)
    reranker = module.CohereRerank(model="rerank-v3.5", client=client, top_n=2)
    documents = [Document(text, metadata={"n": n}) for n, text in enumerate(DOCUMENTS)]
    found = reranker.compress_documents(documents, "snow")
    assert [one.metadata["n"] for one in found] == [1, 2]
    assert found[0].metadata["relevance_score"] == pytest.approx(4 / 5)


@pytest.mark.parametrize("path", ["/v1/rerank", "/v2/rerank", "/rerank"])
@pytest.mark.parametrize(
    "more",
    [
        {"documents": DOCUMENTS, "top_n": 2},
        {"documents": [{"text": text, "id": str(n)} for n, text in enumerate(DOCUMENTS)], "top_k": 2},
        {"documents": DOCUMENTS, "top_n": 2, "truncation": True, "overfetch": 4, "return_embeddings": False},
        {"documents": DOCUMENTS, "top_n": 2, "rank_fields": None, "max_chunks_per_doc": None, "model": None},
        {"documents": [{"body": text, "n": 1} for text in DOCUMENTS], "rank_fields": ["body"], "top_n": 2.0},
    ],
)
def test_rerank_takes_what_clients_send(service, path, more):
    answer = service[2].post(path, json={"query": "snow", **more})
    assert answer.status_code == 200, answer.text
    assert [result["index"] for result in answer.json()["results"]] == [1, 2]
    assert answer.json()["usage"]["total_tokens"] > 0


def test_jina_gets_its_documents_back(service):
    body = {"model": "jina-reranker-v2", "query": "snow", "documents": DOCUMENTS, "return_documents": True}
    results = service[2].post("/v1/rerank", json=body).json()["results"]
    assert [result["document"]["text"] for result in results] == ["snow", "so", "xyz"]
    service[2].post("/v1/rerank", json={**body, "query": "q" * 5000, "documents": ["d" * 5000]})
    query, (document,) = service[0].read
    assert len(query) == len(document) == 4000


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"query": "x", "documents": []}, "documents is a list of 0"),
        ({"query": "x", "documents": [3, 4]}, "documents[0] is no document"),
        ({"query": "x", "documents": ["d"] * 1001}, "documents is a list of 1001"),
        ({"query": "", "documents": ["d"]}, "query"),
        ({"documents": ["d"]}, "query is missing"),
        ({"query": "x", "documents": ["d"], "top_n": 0}, "top_n"),
        ([], "the body"),
    ],
)
def test_what_can_not_be_reranked_is_told_in_a_sentence(service, wrong, said):
    assert said in refusal(service[2].post("/v2/rerank", json=wrong))


# LangChain with OpenAI


def test_langchain_chats_and_embeds_with_openai(service, plain):
    module = pytest.importorskip("langchain_openai")
    where = {"base_url": f"{service[1]}/v1", "api_key": "any", "http_client": plain}
    model = module.ChatOpenAI(model="m6rec", **where, max_tokens=4096, temperature=0.7, n=1)
    reply = model.invoke([("system", "Be kind."), ("human", "Anything funny?")])
    assert reply.content == 'How about "Film 0"?'
    assert "".join(chunk.content for chunk in model.stream("Anything?")) == 'How about "Film 0"?'
    embeddings = module.OpenAIEmbeddings(model="m6rec", **where, check_embedding_ctx_length=False)
    vectors = embeddings.embed_documents(["a", "bcd"] * 600)
    assert (len(vectors), len(vectors[0])) == (1200, 128)
    assert embeddings.embed_query("bcd") == pytest.approx(vectors[1])
