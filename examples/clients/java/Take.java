import java.nio.charset.StandardCharsets;
import java.util.List;
import redis.clients.jedis.JedisPooled;
import redis.clients.jedis.UnifiedJedis;
import redis.clients.jedis.commands.ProtocolCommand;

/**
 * Takes tokens for one user until it is refused, waits as told, takes again.
 * The key is the first argument; the server is REDIS_URL, or
 * redis://127.0.0.1:6379.
 */
public final class Take {
  /** 200, or 429 when refused; retryAfterMs is 0 when granted, -1 when it can never be. */
  record Decision(int status, long remaining, long retryAfterMs) {}

  private static final ProtocolCommand CL_TAKE = () -> "CL.TAKE".getBytes(StandardCharsets.UTF_8);

  @SuppressWarnings("unchecked")
  static Decision take(UnifiedJedis client, String key, long tokens) {
    List<Long> reply = (List<Long>) client.sendCommand(key, CL_TAKE,
        key, Long.toString(tokens), "CAPACITY", "3", "REFILL", "1", "INTERVAL", "2000");
    return new Decision(reply.get(0) == tokens ? 200 : 429, reply.get(2), reply.get(3));
  }

  public static void main(String[] args) throws InterruptedException {
    String url = System.getenv().getOrDefault("REDIS_URL", "redis://127.0.0.1:6379");
    String key = args.length > 0 ? args[0] : "limit:user:42";
    try (UnifiedJedis client = new JedisPooled(url)) {
      Decision decision = take(client, key, 1);
      while (decision.status() == 200) {
        System.out.printf("%d granted, %d left%n", decision.status(), decision.remaining());
        decision = take(client, key, 1);
      }
      System.out.printf("%d refused, retry in %d ms%n", decision.status(), decision.retryAfterMs());

      if (decision.retryAfterMs() < 0) {
        throw new IllegalStateException(
            "more tokens than the bucket can hold: waiting would not help");
      }
      Thread.sleep(decision.retryAfterMs());
      decision = take(client, key, 1);
      System.out.printf("%d after waiting, %d left%n", decision.status(), decision.remaining());
    }
  }

  private Take() {}
}
