// A client of Pronghorn in C#: JSON-RPC 2.0 over a DEALER socket of libzmq, written from PROTOCOL.md
// alone. Needs libzmq and nothing else; JSON is the framework's own.
//
//   using (var client = new Pronghorn.Client(endpoint)) {
//       object sum = await client.Call("add", new { a = 1, b = 2 }, timeoutMs: 1000, cancel: token);
//   }
//   new Pronghorn.Client("tcp://host:5555", Pronghorn.Key.Read("shop-front.key"));

using System;
using System.Collections.Concurrent;
using System.Collections.Generic;
using System.IO;
using System.Runtime.InteropServices;
using System.Text;
using System.Text.RegularExpressions;
using System.Threading;
using System.Threading.Tasks;
using System.Web.Script.Serialization;

namespace Pronghorn
{
    /// A call failed: Code and Outcome say how, Details all else that is known.
    public sealed class PronghornException : Exception
    {
        public readonly string Code;
        public readonly IDictionary<string, object> Details;

        public string Outcome
        {
            get { return Details.ContainsKey("outcome") ? (string)Details["outcome"] : null; }
        }

        public PronghornException(string code, string message, IDictionary<string, object> details)
            : base(message)
        {
            Code = code;
            Details = details;
        }

        internal static PronghornException Local(string code, string message, string outcome)
        {
            return new PronghornException(
                code, message, new Dictionary<string, object> { { "outcome", outcome } });
        }
    }

    /// Keys in Z85: our own pair, and the broker's public one.
    public sealed class Key
    {
        public readonly string Public, Secret, Server;

        public Key(string @public, string secret, string server)
        {
            Public = @public;
            Secret = secret;
            Server = server;
        }

        /// Reads a file of `pronghorn keys new`.
        public static Key Read(string path)
        {
            string text = File.ReadAllText(path);
            return new Key(Find(text, "public"), Find(text, "secret"), Find(text, "server"));
        }

        private static string Find(string text, string name)
        {
            Match found = Regex.Match(text, "^" + name + " = \"(.*)\"$", RegexOptions.Multiline);
            if (!found.Success) throw new FormatException("there is no key named " + name);
            return found.Groups[1].Value;
        }
    }

    /// One connection, for any number of calls of any threads at once.
    public sealed class Client : IDisposable
    {
        // A socket belongs to one thread: callers hand over what they send through a pair of
        // sockets within the process.
        private readonly IntPtr context;
        private readonly IntPtr handingOver;
        private readonly object handingOverLock = new object();
        private readonly Thread thread;
        private readonly ConcurrentDictionary<int, TaskCompletionSource<object>> open =
            new ConcurrentDictionary<int, TaskCompletionSource<object>>();
        private int lastId;
        private bool connected; // whether the first welcome to a probe has come
        private bool closed;

        public Client(string endpoint, Key key = null)
        {
            context = Zmq.zmq_ctx_new();
            handingOver = Zmq.Socket(context, Zmq.PAIR);
            Zmq.Check(Zmq.zmq_bind(handingOver, "inproc://calls"));
            IntPtr handed = Zmq.Socket(context, Zmq.PAIR);
            Zmq.Check(Zmq.zmq_connect(handed, "inproc://calls"));
            IntPtr broker = Zmq.Socket(context, Zmq.DEALER);
            Zmq.Set(broker, Zmq.IMMEDIATE, 1);
            Zmq.Set(broker, Zmq.PROBE_ROUTER, 1);
            Zmq.Set(broker, Zmq.LINGER, 200);
            if (key != null)
            {
                Zmq.Set(broker, Zmq.CURVE_PUBLICKEY, key.Public);
                Zmq.Set(broker, Zmq.CURVE_SECRETKEY, key.Secret);
                Zmq.Set(broker, Zmq.CURVE_SERVERKEY, key.Server);
            }
            Zmq.Check(Zmq.zmq_connect(broker, endpoint));
            thread = new Thread(() => Run(handed, broker)) { IsBackground = true };
            thread.Start();
        }

        /// Calls a node; params an object (by name) or array (by position). Parts of a streaming
        /// node come as an array.
        public Task<object> Call(
            string node, object parameters = null, int? timeoutMs = null,
            CancellationToken cancel = default(CancellationToken))
        {
            var request = new Dictionary<string, object> { { "method", node }, { "params", parameters } };
            if (timeoutMs != null) request["timeout_ms"] = timeoutMs;
            int id;
            Task<object> call = Send(request, out id);
            if (cancel.CanBeCanceled)
            {
                // Its own reply still comes, and is what the caller gets.
                var registration = cancel.Register(() => Cancel(id));
                call.ContinueWith(done => registration.Dispose());
            }
            return call;
        }

        /// Cancels what is open.
        public void Dispose()
        {
            lock (handingOverLock)
            {
                if (closed) return;
                closed = true;
                Zmq.Send(handingOver, new byte[0], 0); // the end
            }
            thread.Join();
            Zmq.zmq_close(handingOver);
            Zmq.zmq_ctx_term(context);
        }

        private void Cancel(int id)
        {
            int ignored;
            Send(new Dictionary<string, object> {
                { "method", "pronghorn.cancel" }, { "params", new { id } } }, out ignored);
        }

        private Task<object> Send(Dictionary<string, object> request, out int id)
        {
            var done = new TaskCompletionSource<object>(TaskCreationOptions.RunContinuationsAsynchronously);
            id = Interlocked.Increment(ref lastId);
            request["jsonrpc"] = "2.0";
            request["id"] = id;
            byte[] frame = Encoding.UTF8.GetBytes(Json().Serialize(request));
            lock (handingOverLock)
            {
                if (closed) throw new ObjectDisposedException("Client");
                open[id] = done;
                Zmq.Send(handingOver, frame, 0);
            }
            return done.Task;
        }

        private void Run(IntPtr handed, IntPtr broker)
        {
            var items = new[] {
                new Zmq.PollItem { Socket = handed, Events = Zmq.POLLIN },
                new Zmq.PollItem { Socket = broker, Events = Zmq.POLLIN },
            };
            for (;;)
            {
                Zmq.Check(Zmq.zmq_poll(items, items.Length, -1));
                if ((items[1].Revents & Zmq.POLLIN) != 0) Take(Zmq.Receive(broker));
                if ((items[0].Revents & Zmq.POLLIN) == 0) continue;
                byte[] frame = Zmq.Receive(handed);
                if (frame.Length == 0) break;
                // IMMEDIATE: this waits while there is no broker, and nothing goes to a wrong one.
                Zmq.Send(broker, frame, 0);
            }
            EndAll("CANCELLED", "the client was closed");
            Zmq.Send(broker, new byte[] { 0x91, 34 }, Zmq.DONTWAIT); // goodbye, in msgpack
            Zmq.zmq_close(broker);
            Zmq.zmq_close(handed);
        }

        private void Take(byte[] frame)
        {
            if (frame.Length == 0) return;
            if (frame[0] != '{')
            {
                // The only one in msgpack that comes unasked and matters: the answer to the probe of
                // a new connection. A second one tells that what was open before is lost.
                bool welcome = frame.Length > 2 && frame[1] == 48 && frame[2] == 0xc0;
                if (welcome && connected) EndAll("BROKER_LOST", "the connection was lost");
                connected |= welcome;
                return;
            }
            var reply = Json().Deserialize<Dictionary<string, object>>(Encoding.UTF8.GetString(frame));
            TaskCompletionSource<object> done;
            if (!(reply["id"] is int) || !open.TryRemove((int)reply["id"], out done)) return;
            if (!reply.ContainsKey("error"))
            {
                done.TrySetResult(reply["result"]);
                return;
            }
            var error = (Dictionary<string, object>)reply["error"];
            var details = (Dictionary<string, object>)error["data"];
            done.TrySetException(
                new PronghornException((string)details["code"], (string)error["message"], details));
        }

        private void EndAll(string code, string message)
        {
            foreach (int id in open.Keys)
            {
                TaskCompletionSource<object> done;
                if (open.TryRemove(id, out done))
                    done.TrySetException(PronghornException.Local(code, message, "maybe_executed"));
            }
        }

        private static JavaScriptSerializer Json()
        {
            return new JavaScriptSerializer { MaxJsonLength = int.MaxValue, RecursionLimit = 200 };
        }
    }

    /// As much of libzmq as is needed.
    internal static class Zmq
    {
        private const string Library = "libzmq.so.5";

        public const int PAIR = 0, DEALER = 5;
        public const int LINGER = 17, IMMEDIATE = 39, PROBE_ROUTER = 51;
        public const int CURVE_PUBLICKEY = 48, CURVE_SECRETKEY = 49, CURVE_SERVERKEY = 50;
        public const int DONTWAIT = 1;
        public const short POLLIN = 1;

        private const int EINTR = 4;

        [StructLayout(LayoutKind.Sequential)]
        public struct PollItem
        {
            public IntPtr Socket;
            public int Fd;
            public short Events;
            public short Revents;
        }

        [StructLayout(LayoutKind.Sequential, Size = 64)]
        private struct Message
        {
            private IntPtr first;
        }

        [DllImport(Library)] public static extern IntPtr zmq_ctx_new();
        [DllImport(Library)] public static extern int zmq_ctx_term(IntPtr context);
        [DllImport(Library)] public static extern int zmq_bind(IntPtr socket, string endpoint);
        [DllImport(Library)] public static extern int zmq_close(IntPtr socket);
        [DllImport(Library, SetLastError = true)]
        public static extern int zmq_connect(IntPtr socket, string endpoint);
        [DllImport(Library, SetLastError = true)]
        public static extern int zmq_poll([In, Out] PollItem[] items, int count, IntPtr timeout);
        [DllImport(Library)] private static extern IntPtr zmq_socket(IntPtr context, int type);
        [DllImport(Library, SetLastError = true)]
        private static extern int zmq_setsockopt(IntPtr socket, int option, ref int value, UIntPtr size);
        [DllImport(Library, SetLastError = true)]
        private static extern int zmq_setsockopt(IntPtr socket, int option, byte[] value, UIntPtr size);
        [DllImport(Library, SetLastError = true)]
        private static extern int zmq_send(IntPtr socket, byte[] data, UIntPtr size, int flags);
        [DllImport(Library)] private static extern int zmq_msg_init(ref Message message);
        [DllImport(Library)] private static extern int zmq_msg_close(ref Message message);
        [DllImport(Library)] private static extern IntPtr zmq_msg_data(ref Message message);
        [DllImport(Library)] private static extern UIntPtr zmq_msg_size(ref Message message);
        [DllImport(Library, SetLastError = true)]
        private static extern int zmq_msg_recv(ref Message message, IntPtr socket, int flags);
        [DllImport(Library)] private static extern IntPtr zmq_strerror(int number);

        public static int zmq_poll(PollItem[] items, int count, int timeout)
        {
            int found;
            do found = zmq_poll(items, count, new IntPtr(timeout));
            while (found < 0 && Marshal.GetLastWin32Error() == EINTR);
            return found;
        }

        public static IntPtr Socket(IntPtr context, int type)
        {
            IntPtr socket = zmq_socket(context, type);
            if (socket == IntPtr.Zero) Check(-1);
            return socket;
        }

        public static void Set(IntPtr socket, int option, int value)
        {
            Check(zmq_setsockopt(socket, option, ref value, new UIntPtr(sizeof(int))));
        }

        public static void Set(IntPtr socket, int option, string value)
        {
            byte[] text = Encoding.ASCII.GetBytes(value + "\0");
            Check(zmq_setsockopt(socket, option, text, new UIntPtr((uint)text.Length)));
        }

        public static void Send(IntPtr socket, byte[] frame, int flags)
        {
            while (zmq_send(socket, frame, new UIntPtr((uint)frame.Length), flags) < 0)
            {
                if (Marshal.GetLastWin32Error() == EINTR) continue;
                if (flags == DONTWAIT) return;
                Check(-1);
            }
        }

        public static byte[] Receive(IntPtr socket)
        {
            // The message is looked at where it lies: libzmq must not find it elsewhere later.
            var message = new Message();
            zmq_msg_init(ref message);
            while (zmq_msg_recv(ref message, socket, 0) < 0)
                if (Marshal.GetLastWin32Error() != EINTR) Check(-1);
            var frame = new byte[(int)zmq_msg_size(ref message)];
            if (frame.Length > 0) Marshal.Copy(zmq_msg_data(ref message), frame, 0, frame.Length);
            zmq_msg_close(ref message);
            return frame;
        }

        public static void Check(int result)
        {
            if (result >= 0) return;
            throw new InvalidOperationException(
                Marshal.PtrToStringAnsi(zmq_strerror(Marshal.GetLastWin32Error())));
        }
    }
}
