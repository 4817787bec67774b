def test_x(client):
    assert client.call("add", 1, 2) == 3


async def test_y(async_client):
    assert await async_client.call("add", 1, 2) == 3
