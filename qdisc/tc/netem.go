// SPDX-License-Identifier: Apache-2.0

package tc

import (
	"errors"

	"sluice/qdisc"
)

func netem(q *qdisc.Qdisc, w *words) error {
	p := &qdisc.Netem{}
	q.Netem = p
	err := each(w, q.Kind, fields{
		"limit":        into(&p.Limit, size2int),
		"latency":      func(w *words, _ string) error { return netemDelay(w, p) },
		"delay":        func(w *words, _ string) error { return netemDelay(w, p) },
		"loss":         func(w *words, _ string) error { return netemLoss(w, p) },
		"drop":         func(w *words, _ string) error { return netemLoss(w, p) },
		"ecn":          flag(&p.ECN, true),
		"reorder":      func(w *words, word string) error { return chance(w, word, &p.Reorder, &p.ReorCor) },
		"corrupt":      func(w *words, word string) error { return chance(w, word, &p.Corrupt, &p.CorrCor) },
		"duplicate":    func(w *words, word string) error { return chance(w, word, &p.Duplicate, &p.DupCor) },
		"gap":          into(&p.Gap, number[uint32]),
		"distribution": into(&p.Distribution, distributionOf),
		"rate":         func(w *words, _ string) error { return netemRate(w, p) },
		"slot":         func(w *words, _ string) error { return netemSlot(w, p) },
		"seed":         into(&p.Seed, number[uint64]),
	})
	if err != nil {
		return err
	}
	return netemComplete(p)
}

func size2int(word string) (int, error) {
	x, err := size(word)
	return int(x), err
}

func netemComplete(p *qdisc.Netem) error {
	switch {
	case p.Distribution != "" && (p.Delay == 0 || p.Jitter == 0):
		return errors.New("netem: distribution specified but no latency and jitter values")
	case p.Reorder != 0 && p.Delay == 0:
		return errors.New("netem: reordering not possible without specifying some delay")
	case p.Reorder == 0 && p.Gap != 0:
		return errors.New("netem: gap specified without reorder probability")
	case p.Reorder != 0 && p.Gap == 0:
		p.Gap = 1
	}
	return nil
}

func distributionOf(word string) (string, error) {
	switch word {
	case "uniform":
		return "", nil
	case "normal", "pareto", "paretonormal":
		return word, nil
	}
	return "", errors.New("want uniform, normal, pareto or paretonormal")
}

// chance reads a share, and a correlation if there is one.
func chance(w *words, field string, p, correlation *qdisc.Percent) error {
	if err := set(w, field, p, percent); err != nil {
		return err
	}
	optional(w, correlation, percent)
	return nil
}

// optional reads the next word if it can be read so.
func optional[T any](w *words, to *T, read func(string) (T, error)) bool {
	if w.end() {
		return false
	}
	v, err := read(w.peek())
	if err != nil {
		return false
	}
	*to = v
	w.next()
	return true
}

func netemDelay(w *words, p *qdisc.Netem) error {
	if err := set(w, "delay", &p.Delay, nanos); err != nil {
		return err
	}
	if optional(w, &p.Jitter, nanos) {
		optional(w, &p.DelayCor, percent)
	}
	return nil
}

// netemLoss reads random loss, which may leave out its word, or a model.
func netemLoss(w *words, p *qdisc.Netem) error {
	p.Loss, p.LossCor, p.State, p.Gemodel = 0, 0, nil, nil
	switch {
	case w.is("state"):
		return lossState(w, p)
	case w.is("gemodel"):
		return lossGemodel(w, p)
	}
	w.is("random")
	return chance(w, "loss", &p.Loss, &p.LossCor)
}

func lossState(w *words, p *qdisc.Netem) error {
	s := &qdisc.State4{}
	p.State = s
	if err := set(w, "loss state p13", &s.P13, percent); err != nil {
		return err
	}
	const all = 1<<32 - 1
	s.P31, s.P23 = all-s.P13, all
	if optional(w, &s.P31, percent) && optional(w, &s.P32, percent) && optional(w, &s.P23, percent) {
		optional(w, &s.P14, percent)
	}
	return nil
}

func lossGemodel(w *words, p *qdisc.Netem) error {
	g := &qdisc.Gemodel{}
	p.Gemodel = g
	if err := set(w, "loss gemodel p", &g.P, percent); err != nil {
		return err
	}
	const all = 1<<32 - 1
	g.R = all - g.P
	var h qdisc.Percent
	if optional(w, &g.R, percent) && optional(w, &h, percent) {
		g.H = all - h
		optional(w, &g.K1, percent)
	}
	return nil
}

func netemRate(w *words, p *qdisc.Netem) error {
	if err := set(w, "rate", &p.Rate, rate); err != nil {
		return err
	}
	if optional(w, &p.Overhead, signed) && optional(w, &p.CellSize, number[uint32]) {
		optional(w, &p.CellOverhead, signed)
	}
	return nil
}

func netemSlot(w *words, p *qdisc.Netem) error {
	s := &qdisc.Slot{}
	p.Slot = s
	if err := slotTimes(w, s); err != nil {
		return err
	}
	for {
		var err error
		switch {
		case w.is("packets"):
			err = set(w, "slot packets", &s.Packets, number[int])
		case w.is("bytes"):
			err = set(w, "slot bytes", &s.Bytes, number[int])
		default:
			return nil
		}
		if err != nil {
			return err
		}
	}
}

func slotTimes(w *words, s *qdisc.Slot) error {
	if !w.is("distribution") {
		err := set(w, "slot", &s.Min, nanos)
		s.Max = s.Min
		optional(w, &s.Max, nanos)
		return err
	}
	if err := set(w, "slot distribution", &s.Distribution, distributionOf); err != nil {
		return err
	}
	if err := set(w, "slot distribution delay", &s.Delay, nanos); err != nil {
		return err
	}
	return set(w, "slot distribution jitter", &s.Jitter, nanos)
}
