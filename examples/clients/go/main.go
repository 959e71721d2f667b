// Takes tokens for one user until it is refused, waits as told, takes again.
//
// usage: go run . [key]
// The server is REDIS_URL, or redis://127.0.0.1:6379.
package main

import (
	"context"
	"fmt"
	"log"
	"os"
	"time"

	"github.com/redis/go-redis/v9"
)

// Decision says what to do with a request.
type Decision struct {
	Status     int           // 200, or 429 when refused
	Remaining  int64         // whole tokens left
	RetryAfter time.Duration // 0 when granted, negative when it can never be
}

func take(ctx context.Context, client redis.UniversalClient, key string, tokens int64) (Decision, error) {
	reply, err := client.Do(ctx, "CL.TAKE", key, tokens,
		"CAPACITY", 3, "REFILL", 1, "INTERVAL", 2000).Int64Slice()
	if err != nil {
		return Decision{}, err
	}
	decision := Decision{Status: 429, Remaining: reply[2], RetryAfter: time.Duration(reply[3]) * time.Millisecond}
	if reply[0] == tokens {
		decision.Status = 200
	}
	return decision, nil
}

func main() {
	url := "redis://127.0.0.1:6379"
	if set := os.Getenv("REDIS_URL"); set != "" {
		url = set
	}
	options, err := redis.ParseURL(url)
	if err != nil {
		log.Fatal(err)
	}
	client := redis.NewClient(options)
	defer client.Close()
	key := "limit:user:42"
	if len(os.Args) > 1 {
		key = os.Args[1]
	}
	if err := run(context.Background(), client, key); err != nil {
		log.Fatal(err)
	}
}

func run(ctx context.Context, client redis.UniversalClient, key string) error {
	decision, err := take(ctx, client, key, 1)
	for ; err == nil && decision.Status == 200; decision, err = take(ctx, client, key, 1) {
		fmt.Printf("%d granted, %d left\n", decision.Status, decision.Remaining)
	}
	if err != nil {
		return err
	}
	fmt.Printf("%d refused, retry in %d ms\n", decision.Status, decision.RetryAfter.Milliseconds())

	if decision.RetryAfter < 0 {
		return fmt.Errorf("more tokens than the bucket can hold: waiting would not help")
	}
	time.Sleep(decision.RetryAfter)
	decision, err = take(ctx, client, key, 1)
	if err != nil {
		return err
	}
	fmt.Printf("%d after waiting, %d left\n", decision.Status, decision.Remaining)
	return nil
}
