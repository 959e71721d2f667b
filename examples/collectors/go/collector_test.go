package collector

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"math"
	"net/http"
	"net/http/httptest"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"
)

const deadline = 20 * time.Second

// asked is a request that came.
type asked struct {
	at     time.Time
	how    string
	events []Event
}

// answered is what the stand-in says: a status and fields, and what to change of an answer that accepts all.
type answered struct {
	status     int
	retryAfter string
	change     map[string]any
}

// standIn stands in for claw-edge: answers first (a status of 0 hangs up), then each event is accepted.
type standIn struct {
	*httptest.Server
	lock    sync.Mutex
	came    []asked
	answers []answered
}

func newStandIn(t *testing.T, answers ...answered) *standIn {
	stand := &standIn{answers: answers}
	stand.Server = httptest.NewServer(stand)
	t.Cleanup(stand.Server.Close)
	return stand
}

func (s *standIn) ServeHTTP(response http.ResponseWriter, request *http.Request) {
	how := strings.Join([]string{request.Method, request.URL.Path, request.Header.Get("Authorization"),
		request.Header.Get("Content-Type")}, " ")
	came := asked{at: time.Now(), how: how}
	for lines := bufio.NewScanner(request.Body); lines.Scan(); {
		var event Event
		if err := json.Unmarshal(lines.Bytes(), &event); err != nil {
			panic(err)
		}
		came.events = append(came.events, event)
	}
	s.lock.Lock()
	s.came = append(s.came, came)
	answer := answered{status: http.StatusOK}
	if len(s.answers) > 0 {
		answer, s.answers = s.answers[0], s.answers[1:]
	}
	s.lock.Unlock()
	if answer.status == 0 {
		panic(http.ErrAbortHandler)
	}
	whole := map[string]any{"accepted": len(came.events), "duplicates": 0, "refused": 0, "errors": []any{},
		"bucketSize": 40, "refillRate": 400}
	for name, value := range answer.change {
		whole[name] = value
		if value == nil {
			delete(whole, name)
		}
	}
	if answer.retryAfter != "" {
		response.Header().Set("Retry-After", answer.retryAfter)
	}
	response.WriteHeader(answer.status)
	_ = json.NewEncoder(response).Encode(whole)
}

// started gives a collector, and what it told, which is to be read after it has ended.
func started(url string, change func(*Options)) (*Collector, *[]string) {
	told := &[]string{}
	options := Options{URL: url, Token: "secret", OnError: func(err error) { *told = append(*told, err.Error()) }}
	if change != nil {
		change(&options)
	}
	return New(options), told
}

func event(number int) Event {
	return Event{UserID: "ann", ItemID: fmt.Sprintf("item-%d", number), Score: 4.5, Timestamp: 1_790_000_000_000 + int64(number)}
}

func fill(collector *Collector, count int) {
	for number := 0; number < count; number++ {
		collector.Add(event(number))
	}
}

func end(t *testing.T, collector *Collector) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), deadline)
	defer cancel()
	if err := collector.Close(ctx); err != nil {
		t.Fatal(err)
	}
}

func until(t *testing.T, holds func() bool) {
	t.Helper()
	for end := time.Now().Add(deadline); !holds(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("waited in vain")
		}
	}
}

func equal(t *testing.T, got, expected any) {
	t.Helper()
	if !reflect.DeepEqual(got, expected) {
		t.Errorf("%+v is not %+v", got, expected)
	}
}

// never lets all that is added be sent at the end.
func never(options *Options) { options.Every = time.Hour }

func TestEventsGoInBatchesOfAThousand(t *testing.T) {
	stand := newStandIn(t)
	collector, told := started(stand.URL, func(options *Options) { never(options); options.Route = "shop" })
	fill(collector, 2_500)
	end(t, collector)
	for place, count := range []int{1_000, 1_000, 500} {
		equal(t, len(stand.came[place].events), count)
		equal(t, stand.came[place].how, "POST /api/v1/event Bearer secret application/x-ndjson")
	}
	last := event(2_499)
	last.Route = "shop"
	equal(t, stand.came[2].events[499], last)
	equal(t, collector.Counts(), Counts{Accepted: 2_500})
	equal(t, *collector.Policy(), Policy{BucketSize: 40, RefillRate: 400})
	equal(t, *told, []string{})
}

func TestBatchesGoByThemselves(t *testing.T) {
	stand := newStandIn(t)
	collector, _ := started(stand.URL, nil)
	defer end(t, collector)
	fill(collector, 3)
	until(t, func() bool { return collector.Counts().Accepted == 3 })
}

func TestWhoIsRefusedOrFindsNobodyComesAgain(t *testing.T) {
	stand := newStandIn(t, answered{status: 429, retryAfter: "1"}, answered{status: 503}, answered{})
	collector, told := started(stand.URL, never)
	fill(collector, 2)
	end(t, collector)
	equal(t, len(stand.came), 4)
	for _, came := range stand.came {
		equal(t, came.events, stand.came[0].events)
	}
	if waited := stand.came[1].at.Sub(stand.came[0].at); waited < 999*time.Millisecond {
		t.Errorf("Retry-After was not kept: %s", waited)
	}
	equal(t, collector.Counts(), Counts{Accepted: 2, Retries: 3})
	equal(t, *told, []string{})
}

func TestTheOldestMakesRoom(t *testing.T) {
	stand := newStandIn(t)
	collector, _ := started(stand.URL, func(options *Options) { never(options); options.Capacity = 10 })
	fill(collector, 25)
	end(t, collector)
	equal(t, stand.came[0].events[0], event(15))
	equal(t, collector.Counts(), Counts{Accepted: 10, Dropped: 15})
}

func TestWhatIsRefusedIsCountedAndTold(t *testing.T) {
	refused := []any{map[string]any{"line": 2, "detail": "the score must be a number"}}
	for _, row := range []struct {
		answer   answered
		expected Counts
		told     string
	}{
		{answered{status: 400}, Counts{Dropped: 3}, "3 events dropped: 400 Bad Request "},
		{answered{status: 200, change: map[string]any{"accepted": 1, "duplicates": 1, "refused": 1, "errors": refused}},
			Counts{Accepted: 1, Duplicates: 1, Refused: 1}, "line 2: the score must be a number"},
		{answered{status: 200, change: map[string]any{"accepted": 0, "refused": 3, "errors": refused, "bucketSize": nil,
			"refillRate": nil}}, Counts{Refused: 3}, "line 2: the score must be a number"},
	} {
		stand := newStandIn(t, row.answer)
		collector, told := started(stand.URL, never)
		fill(collector, 3)
		end(t, collector)
		equal(t, collector.Counts(), row.expected)
		equal(t, collector.Policy() != nil, row.expected.Accepted > 0)
		if len(*told) != 1 || !strings.HasPrefix((*told)[0], row.told) {
			t.Errorf("%q is not %q", *told, row.told)
		}
	}
}

func TestANumberThatIsNoneSpoilsNoOther(t *testing.T) {
	stand := newStandIn(t)
	collector, told := started(stand.URL, never)
	fill(collector, 1)
	collector.Add(Event{UserID: "ann", ItemID: "tea", Score: math.NaN()})
	end(t, collector)
	equal(t, collector.Counts(), Counts{Accepted: 1, Refused: 1})
	equal(t, len(*told), 1)
}

func TestAHandlerIsTimed(t *testing.T) {
	stand := newStandIn(t)
	collector, _ := started(stand.URL, never)
	reached := make(chan struct{})
	handler := http.HandlerFunc(func(response http.ResponseWriter, request *http.Request) {
		time.Sleep(50 * time.Millisecond)
		switch request.URL.Path {
		case "/none":
			http.NotFound(response, request)
		case "/broken":
			panic(http.ErrAbortHandler)
		case "/never":
			close(reached)
			<-request.Context().Done()
		default:
			// A handler that says nothing answers 200.
		}
	})
	describe := func(request *http.Request) (Event, bool) {
		event := Event{UserID: "ann", ItemID: request.URL.Path, Score: 1, Route: "shop"}
		return event, request.URL.Path != "/health"
	}
	service := httptest.NewServer(collector.Timed(handler, describe))
	// On a connection that was used before, a request without an answer is sent twice.
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	for _, path := range []string{"/tea", "/none", "/broken", "/health"} {
		if response, err := client.Get(service.URL + path); err == nil {
			response.Body.Close()
		}
	}
	ctx, cancel := context.WithCancel(context.Background())
	request, _ := http.NewRequestWithContext(ctx, http.MethodGet, service.URL+"/never", nil)
	go func() {
		<-reached
		cancel()
	}()
	if _, err := client.Do(request); err == nil {
		t.Error("nobody answers that")
	}
	// All requests have ended then.
	service.Close()
	end(t, collector)
	var seen []string
	for _, event := range stand.came[0].events {
		seen = append(seen, fmt.Sprint(event.ItemID, " ", event.Status, " ", event.Route))
		if event.LatencyMs < 49 || event.LatencyMs > 10_000 {
			t.Errorf("%+v", event)
		}
	}
	equal(t, seen, []string{"/tea 200 shop", "/none 404 shop", "/broken 500 shop", "/never 499 shop"})
}
