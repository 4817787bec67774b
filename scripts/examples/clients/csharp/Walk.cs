// Takes the walk that README.md describes: mono Walk.exe ENDPOINT. PRONGHORN_KEY may name a key file.

using System;
using System.Collections;
using System.Linq;
using System.Threading;
using System.Threading.Tasks;
using Pronghorn;

public static class Walk
{
    public static int Main(string[] arguments)
    {
        string path = Environment.GetEnvironmentVariable("PRONGHORN_KEY");
        Key key = path != null ? Key.Read(path) : null;
        using (var client = new Client(arguments[0], key)) Take(client).Wait();
        return 0;
    }

    private static async Task Take(Client client)
    {
        Console.WriteLine("call {0}", await client.Call("add", new { a = 1, b = 2 }));

        var parts = ((IEnumerable)await client.Call("count", new { n = 200 })).Cast<int>().ToList();
        Console.WriteLine("stream {0} parts, sum {1}", parts.Count, parts.Sum());

        var giveUp = new CancellationTokenSource();
        Task<object> waiting = client.Call("wait", cancel: giveUp.Token);
        giveUp.Cancel();
        Console.WriteLine("cancel {0}", (await Failed(waiting)).Code);

        Console.WriteLine("deadline {0}", (await Failed(client.Call("wait", timeoutMs: 50))).Code);

        PronghornException error = await Failed(client.Call("divide", new[] { 1, 0 }));
        Console.WriteLine("error {0} {1}", error.Code, error.Details["exception"]);

        Task<object> lost = client.Call("wait");
        await client.Call("add", new[] { 1, 2 }); // what was sent before it has arrived
        Console.WriteLine("open");
        Console.WriteLine("lost {0}", (await Failed(lost)).Code);

        Console.WriteLine("again {0}", await client.Call("add", new { a = 1, b = 2 }));
    }

    private static async Task<PronghornException> Failed(Task<object> call)
    {
        try
        {
            await call;
        }
        catch (PronghornException error)
        {
            return error;
        }
        throw new InvalidOperationException("did not fail");
    }
}
