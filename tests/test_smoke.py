from tests.conftest import Running


async def test_a_call_is_relayed_and_logged(kibitz: Running) -> None:
    response = await kibitz.chat(Helicone_Request_Id="ticket-42-1700000000")
    assert response.status == 200
    assert response.headers.getall("Helicone-Id") == ["ticket-42-1700000000"]
    row = await kibitz.row("ticket-42-1700000000")
    assert row["response_text"] == "Hello there."
    assert row["attempt"] == 1
