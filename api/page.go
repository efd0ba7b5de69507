// SPDX-License-Identifier: Apache-2.0

package api

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strconv"
)

// Page is a part of a list that may be as long as a table of connections. Its body has
// an entry in each line: as conntrack(8) would print it if Lines asked for that, or else
// as JSON. Whoever wants more asks for it, so that the daemon keeps nothing for a client
// that reads slowly, or not at all.
type Page struct {
	// Next is what to ask with for the rest; 0: there is none. Events always go on.
	Next uint64
	// Lost is how many events there were that nobody keeps any more.
	Lost    uint64
	Entries int
	Body    []byte
}

// PageQuery is what a client asks for a part of a list.
type PageQuery struct {
	ShowQuery
	From  uint64 // Next of the part before; 0: from the beginning, of events from now on
	Lines bool   // as conntrack(8) would print it
}

// The headers of a Page, and the greatest body in bytes that a client takes.
const (
	headerNext    = "Sluice-Next"
	headerLost    = "Sluice-Lost"
	headerEntries = "Sluice-Entries"
	maxPage       = 8 << 20
)

// WritePage answers a request with a part of a list.
func WritePage(w http.ResponseWriter, p *Page) {
	h := w.Header()
	h.Set("Content-Type", "text/plain; charset=utf-8")
	h.Set("Content-Length", strconv.Itoa(len(p.Body)))
	h.Set(headerEntries, strconv.Itoa(p.Entries))
	for name, n := range map[string]uint64{headerNext: p.Next, headerLost: p.Lost} {
		if n != 0 {
			h.Set(name, strconv.FormatUint(n, 10))
		}
	}
	// The only possible error is that the client went away.
	_, _ = w.Write(p.Body)
}

// page asks for a part of a list.
func (c *Client) page(ctx context.Context, method, path string, body []byte) (*Page, error) {
	p := new(Page)
	err := c.ask(ctx, method, path, body, func(resp *http.Response) error { return p.read(resp) })
	return p, err
}

func (p *Page) read(resp *http.Response) (err error) {
	number := func(name string) (n uint64) {
		if text := resp.Header.Get(name); text != "" && err == nil {
			n, err = strconv.ParseUint(text, 10, 64)
		}
		return n
	}
	p.Next, p.Lost, p.Entries = number(headerNext), number(headerLost), int(number(headerEntries)&(1<<32-1))
	if err != nil {
		return fmt.Errorf("reply of sluiced: %w", err)
	}
	if resp.ContentLength < 0 || resp.ContentLength > maxPage {
		return fmt.Errorf("reply of sluiced: a part of a list with %d bytes", resp.ContentLength)
	}
	p.Body = make([]byte, resp.ContentLength)
	if _, err := io.ReadFull(resp.Body, p.Body); err != nil {
		return fmt.Errorf("reply of sluiced: %w", err)
	}
	return nil
}

// path is that of a list, with what the query asks for.
func (q *PageQuery) path(of string) string {
	v := q.values()
	v.Set("from", strconv.FormatUint(q.From, 10))
	if q.Lines {
		v.Set("lines", "1")
	}
	return of + "?" + v.Encode()
}
