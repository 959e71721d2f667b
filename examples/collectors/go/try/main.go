// Sends 100 events and prints what was answered.
//
// usage: go run ./try URL [TOKEN [ROUTE]]
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"time"

	collector "redis-claw-collector"
)

func main() {
	args := append(os.Args[1:], "", "", "")
	events := collector.New(collector.Options{
		URL: args[0], Token: args[1], Route: args[2],
		OnError: func(err error) { fmt.Fprintln(os.Stderr, err) },
	})
	for number := 0; number < 100; number++ {
		events.Add(collector.Event{
			UserID: fmt.Sprintf("user-%d", number%10), ItemID: fmt.Sprintf("go-%d", number),
			Score: 4.5, LatencyMs: float64(20 + number), Status: 200,
		})
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if err := events.Close(ctx); err != nil {
		fmt.Fprintln(os.Stderr, err)
	}
	told, _ := json.Marshal(struct {
		collector.Counts
		*collector.Policy
	}{events.Counts(), events.Policy()})
	fmt.Println("go:", string(told))
	if events.Counts().Accepted != 100 {
		os.Exit(1)
	}
}
