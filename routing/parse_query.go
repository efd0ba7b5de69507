// SPDX-License-Identifier: Apache-2.0

package routing

import (
	"fmt"
	"net/netip"
)

// Question is what `ip route get` asks: a query whose devices have names.
type Question struct {
	Query
	From, To string // devices of IIF and OIF; "" for 0
}

// ParseQuestion reads what follows `ip route get`: "10.0.0.1 from 10.1.0.2 iif p1".
func ParseQuestion(line string) (*Question, error) {
	q := &Question{}
	w := (*Names)(nil).newWords(line)
	if err := each(w, q, questionWordsTable, plainQuestionWord); err != nil {
		return nil, err
	}
	if !q.Dst.IsValid() {
		return nil, w.wrong("needs an address")
	}
	return q, nil
}

// questionWordsTable are the keywords of a question.
var questionWordsTable = map[string]keyword[Question]{
	"to":      func(w *words, q *Question) error { return w.address(&q.Dst) },
	"from":    func(w *words, q *Question) error { return w.address(&q.Src) },
	"iif":     func(w *words, q *Question) error { return w.device(&q.From) },
	"oif":     func(w *words, q *Question) error { return w.device(&q.To) },
	"dev":     func(w *words, q *Question) error { return w.device(&q.To) },
	"mark":    func(w *words, q *Question) error { return w.uint32(&q.Mark) },
	"ipproto": func(w *words, q *Question) error { return w.ipproto(&q.Proto) },
	"sport":   func(w *words, q *Question) error { return w.port(&q.Sport) },
	"dport":   func(w *words, q *Question) error { return w.port(&q.Dport) },
	"tos":     (*words).questionTOS,
	"dsfield": (*words).questionTOS,
}

func plainQuestionWord(w *words, q *Question) error {
	if q.Dst.IsValid() {
		return w.unknown([]string{"uid", "vrf", "fibmatch", "notify", "connected"})
	}
	a, err := netip.ParseAddr(w.word)
	if err != nil || a.Zone() != "" || a.Is4In6() {
		return w.wrong("not an address")
	}
	q.Dst = a
	return w.agree(a.Is6())
}

func (w *words) port(to *uint16) error {
	n, err := w.number(16)
	*to = uint16(n)
	return err
}

func (w *words) questionTOS(q *Question) error {
	r := Rule{}
	err := w.tos(&r)
	q.TOS = r.TOS
	return err
}

// Ask answers a question. The hash is that of the question's flow with the seed.
func (s *Set) Ask(q *Question, seed uint64) (Query, Result, error) {
	asked := q.Query
	for _, dev := range []struct {
		name  string
		index *uint16
	}{{q.From, &asked.IIF}, {q.To, &asked.OIF}} {
		if dev.name == "" {
			continue
		}
		index, ok := s.devices.index(dev.name)
		if !ok {
			return Query{}, Result{}, fmt.Errorf("%w %q", ErrDevice, dev.name)
		}
		*dev.index = index
	}
	asked.Hash = asked.FlowHash(seed)
	return asked, s.Lookup(&asked), nil
}
