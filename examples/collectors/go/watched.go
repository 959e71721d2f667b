package collector

import (
	"bufio"
	"fmt"
	"net"
	"net/http"
)

// watched remembers the status of a response.
type watched struct {
	http.ResponseWriter
	status int
	headed bool
}

func (w *watched) head(status int) {
	// 1xx are followed by the one that counts.
	if !w.headed && status >= 200 {
		w.status, w.headed = status, true
	}
}

func (w *watched) WriteHeader(status int) {
	w.head(status)
	w.ResponseWriter.WriteHeader(status)
}

func (w *watched) Write(bytes []byte) (int, error) {
	w.head(http.StatusOK)
	return w.ResponseWriter.Write(bytes)
}

// Unwrap is for http.ResponseController; Flush and Hijack are for those who ask for the interfaces.
func (w *watched) Unwrap() http.ResponseWriter { return w.ResponseWriter }

func (w *watched) Flush() {
	if flusher, can := w.ResponseWriter.(http.Flusher); can {
		w.head(http.StatusOK)
		flusher.Flush()
	}
}

func (w *watched) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	if hijacker, can := w.ResponseWriter.(http.Hijacker); can {
		w.head(http.StatusSwitchingProtocols)
		return hijacker.Hijack()
	}
	return nil, nil, fmt.Errorf("the connection cannot be taken over")
}
