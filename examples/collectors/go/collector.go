// Package collector tells claw-edge how requests were served: rating events, sent in batches.
package collector

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math/rand"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"
)

const (
	mostLines = 1000
	// claw-edge knows an event again for a minute; sent later, it could count twice.
	giveUp       = 30 * time.Second
	firstBackOff = 100 * time.Millisecond
	mostBackOff  = 5 * time.Second
	answer       = 5 * time.Second
)

// Event is a rating and how its request was served.
type Event struct {
	UserID string  `json:"userId"`
	ItemID string  `json:"itemId"`
	Score  float64 `json:"score"`
	// Milliseconds since 1970; 0 is now.
	Timestamp int64 `json:"timestamp"`
	// How long the request took; without it the event tells nothing of overload.
	LatencyMs float64 `json:"latencyMs,omitempty"`
	// Of the HTTP response.
	Status int `json:"status,omitempty"`
	// Whose policy it concerns; that of the options when it is empty.
	Route string `json:"route,omitempty"`
}

// Options say where events go. URL is needed.
type Options struct {
	// Of claw-edge, such as http://127.0.0.1:8080.
	URL string
	// The bearer token.
	Token string
	// Of events that name none.
	Route string
	// Most events that wait: 10000 when it is 0. The oldest makes room.
	Capacity int
	// From one batch to the next: 100 ms when it is 0.
	Every time.Duration
	// Is told why events were refused or given up, if it is not nil.
	OnError func(error)
}

// Counts say what became of events. Dropped are those that had no room or were given up.
type Counts struct {
	Accepted   int `json:"accepted"`
	Duplicates int `json:"duplicates"`
	Refused    int `json:"refused"`
	Dropped    int `json:"dropped"`
	Retries    int `json:"retries"`
}

// Policy is what claw-edge answered with.
type Policy struct {
	BucketSize float64 `json:"bucketSize"`
	RefillRate float64 `json:"refillRate"`
}

// Collector queues events and sends them. It may be used from several goroutines.
type Collector struct {
	options Options
	client  http.Client
	close   chan struct{}
	ended   chan struct{}

	lock    sync.Mutex
	waiting []Event
	counts  Counts
	policy  *Policy
}

// New starts a collector, which ends with Close.
func New(options Options) *Collector {
	if options.Capacity == 0 {
		options.Capacity = 10_000
	}
	if options.Every == 0 {
		options.Every = 100 * time.Millisecond
	}
	if options.OnError == nil {
		options.OnError = func(error) {}
	}
	collector := &Collector{
		options: options,
		client:  http.Client{Timeout: answer},
		close:   make(chan struct{}),
		ended:   make(chan struct{}),
	}
	go collector.run()
	return collector
}

// Add queues an event. It never waits for the network.
func (c *Collector) Add(event Event) {
	if event.Timestamp == 0 {
		event.Timestamp = time.Now().UnixMilli()
	}
	if event.Route == "" {
		event.Route = c.options.Route
	}
	c.lock.Lock()
	defer c.lock.Unlock()
	if len(c.waiting) >= c.options.Capacity {
		c.waiting = c.waiting[1:]
		c.counts.Dropped++
	}
	c.waiting = append(c.waiting, event)
}

// Counts so far.
func (c *Collector) Counts() Counts {
	c.lock.Lock()
	defer c.lock.Unlock()
	return c.counts
}

// Policy is the latest that claw-edge answered with, or nil.
func (c *Collector) Policy() *Policy {
	c.lock.Lock()
	defer c.lock.Unlock()
	return c.policy
}

// Timed does the same as handler, and adds an event for each request. Describe says who rated what; false is for no
// event.
func (c *Collector) Timed(handler http.Handler, describe func(*http.Request) (Event, bool)) http.Handler {
	return http.HandlerFunc(func(response http.ResponseWriter, request *http.Request) {
		begun := time.Now()
		// What the status is when the handler panics.
		watched := &watched{ResponseWriter: response, status: http.StatusInternalServerError}
		defer func() {
			event, is := describe(request)
			if !is {
				return
			}
			event.LatencyMs = float64(time.Since(begun)) / float64(time.Millisecond)
			event.Status = watched.status
			if request.Context().Err() != nil {
				// The caller went away before the answer, which tells of overload too.
				event.Status = 499
			}
			c.Add(event)
		}()
		handler.ServeHTTP(watched, request)
		watched.head(http.StatusOK)
	})
}

// Close sends the rest, for as long as ctx lasts, and ends.
func (c *Collector) Close(ctx context.Context) error {
	close(c.close)
	select {
	case <-c.ended:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (c *Collector) run() {
	defer close(c.ended)
	ticker := time.NewTicker(c.options.Every)
	defer ticker.Stop()
	for {
		select {
		case <-ticker.C:
			c.sendAll()
		case <-c.close:
			c.sendAll()
			return
		}
	}
}

func (c *Collector) sendAll() {
	for batch := c.next(); len(batch) > 0; batch = c.next() {
		c.send(batch)
	}
}

func (c *Collector) next() []Event {
	c.lock.Lock()
	defer c.lock.Unlock()
	count := len(c.waiting)
	if count > mostLines {
		count = mostLines
	}
	batch := c.waiting[:count:count]
	c.waiting = c.waiting[count:]
	return batch
}

func (c *Collector) send(batch []Event) {
	var body bytes.Buffer
	lines := json.NewEncoder(&body)
	count := 0
	for _, event := range batch {
		// A number that is none cannot be written. The others can.
		if err := lines.Encode(event); err != nil {
			c.count(func(counts *Counts) { counts.Refused++ })
			c.options.OnError(err)
			continue
		}
		count++
	}
	if count == 0 {
		return
	}
	deadline := time.Now().Add(giveUp)
	for backOff := firstBackOff; ; backOff *= 2 {
		if backOff > mostBackOff {
			backOff = mostBackOff
		}
		wait, err := c.attempt(body.Bytes())
		if err == nil {
			return
		}
		// Not all at once: collectors that were refused together do not come back together.
		if own := time.Duration(float64(backOff) * (0.5 + rand.Float64())); wait >= 0 && own > wait {
			wait = own
		}
		if wait < 0 || time.Now().Add(wait).After(deadline) {
			c.count(func(counts *Counts) { counts.Dropped += count })
			c.options.OnError(fmt.Errorf("%d events dropped: %w", count, err))
			return
		}
		c.count(func(counts *Counts) { counts.Retries++ })
		time.Sleep(wait)
	}
}

func (c *Collector) count(change func(*Counts)) {
	c.lock.Lock()
	defer c.lock.Unlock()
	change(&c.counts)
}

// attempt tries once. After an error it says how long to wait before it is worth trying again; below 0 it is not.
func (c *Collector) attempt(body []byte) (time.Duration, error) {
	url := strings.TrimSuffix(c.options.URL, "/") + "/api/v1/event"
	request, err := http.NewRequest(http.MethodPost, url, bytes.NewReader(body))
	if err != nil {
		return -1, err
	}
	request.Header.Set("Content-Type", "application/x-ndjson")
	if c.options.Token != "" {
		request.Header.Set("Authorization", "Bearer "+c.options.Token)
	}
	response, err := c.client.Do(request)
	if err != nil {
		return 0, err
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		return 0, err
	}
	why := fmt.Errorf("%s %.200s", response.Status, text)
	switch response.StatusCode {
	case http.StatusOK:
		return -1, c.answered(text)
	case http.StatusTooManyRequests, http.StatusServiceUnavailable:
		seconds, err := strconv.ParseUint(response.Header.Get("Retry-After"), 10, 31)
		if err != nil {
			return 0, why
		}
		return time.Duration(seconds) * time.Second, why
	default:
		return -1, why
	}
}

func (c *Collector) answered(text []byte) error {
	var answer struct {
		Accepted, Duplicates, Refused int
		Errors                        []struct {
			Line   int
			Detail string
		}
		// A batch of which no line could be read concerns no route.
		*Policy
	}
	if err := json.Unmarshal(text, &answer); err != nil {
		return err
	}
	c.lock.Lock()
	c.counts.Accepted += answer.Accepted
	c.counts.Duplicates += answer.Duplicates
	c.counts.Refused += answer.Refused
	if answer.Policy != nil {
		c.policy = answer.Policy
	}
	c.lock.Unlock()
	for _, refused := range answer.Errors {
		c.options.OnError(fmt.Errorf("line %d: %s", refused.Line, refused.Detail))
	}
	return nil
}
