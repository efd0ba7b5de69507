// SPDX-License-Identifier: Apache-2.0

package tc

import (
	"errors"
	"fmt"

	"sluice/qdisc"
)

// fields are the keywords of a kind, with what reads the value of each.
type fields map[string]func(w *words, word string) error

// into reads a value into *to.
func into[T any](to *T, read func(string) (T, error)) func(*words, string) error {
	return func(w *words, word string) error { return set(w, word, to, read) }
}

// flag is a keyword without a value.
func flag(to *bool, v bool) func(*words, string) error {
	return func(*words, string) error { *to = v; return nil }
}

// refuse is a keyword that tc knows, and we don't.
func refuse(why string) func(*words, string) error {
	return func(_ *words, word string) error { return fmt.Errorf("%s: %s", word, why) }
}

// skip is a keyword that has no effect.
func skip(*words, string) error { return nil }

// rate adds what all rates have.
func (f fields) rate(r *qdisc.Rate) fields {
	f["overhead"], f["mpu"], f["linklayer"] = into(&r.Overhead, signed), into(&r.MPU, size32), into(&r.ATM, linkLayer)
	return f
}

// each reads keywords with their values until the end.
func each(w *words, kind string, known fields) error {
	for !w.end() {
		word := w.next()
		read := known[word]
		if read == nil {
			return fmt.Errorf("%s: what is %q?", kind, word)
		}
		if err := read(w, word); err != nil {
			return fmt.Errorf("%s: %w", kind, err)
		}
	}
	return nil
}

// options reads the options of a kind of discipline.
func options(q *qdisc.Qdisc, w *words) error {
	read := map[string]func(*qdisc.Qdisc, *words) error{
		"pfifo":      func(q *qdisc.Qdisc, w *words) error { return fifo(q, w, number[int64]) },
		"bfifo":      func(q *qdisc.Qdisc, w *words) error { return fifo(q, w, sizeInt) },
		"pfifo_fast": noOptions, "ingress": noOptions, "drr": noOptions,
		"prio": prio, "tbf": tbf, "htb": htb, "codel": codel, "fq_codel": fqCodel, "fq": fq, "sfq": sfq, "netem": netem,
	}[q.Kind]
	if read == nil {
		return fmt.Errorf("kind: %q is not supported, want pfifo, bfifo, pfifo_fast, prio, tbf, htb, drr, codel, fq_codel, fq, sfq, netem or ingress", q.Kind)
	}
	return read(q, w)
}

func noOptions(q *qdisc.Qdisc, w *words) error { return each(w, q.Kind, nil) }

func fifo(q *qdisc.Qdisc, w *words, read func(string) (int64, error)) error {
	limit := int64(0)
	if err := each(w, q.Kind, fields{"limit": into(&limit, read)}); err != nil || limit == 0 {
		return err
	}
	q.FIFO = &qdisc.FIFO{Limit: limit}
	return nil
}

func prio(q *qdisc.Qdisc, w *words) error {
	p := &qdisc.Prio{Bands: 3}
	q.Prio = p
	return each(w, q.Kind, fields{
		"bands":   into(&p.Bands, number[int]),
		"priomap": func(w *words, _ string) error { return prioMap(w, p) },
	})
}

func prioMap(w *words, p *qdisc.Prio) error {
	p.Map = nil
	for len(p.Map) < 16 {
		var band uint8
		if !optional(w, &band, number[uint8]) {
			break
		}
		p.Map = append(p.Map, band)
	}
	if len(p.Map) == 0 {
		return errors.New("priomap: want up to 16 bands")
	}
	return nil
}

func linkLayer(word string) (bool, error) {
	switch word {
	case "ethernet":
		return false, nil
	case "atm", "adsl":
		return true, nil
	}
	return false, errors.New("want ethernet, atm or adsl")
}

func tbf(q *qdisc.Qdisc, w *words) error {
	p := &qdisc.TBF{}
	q.TBF = p
	err := each(w, q.Kind, fields{
		"rate":     into(&p.Rate.Bytes, rate),
		"burst":    into(&p.Burst, burst),
		"buffer":   into(&p.Burst, burst),
		"maxburst": into(&p.Burst, burst),
		"limit":    into(&p.Limit, sizeInt),
		"latency":  into(&p.Latency, duration),
		"peakrate": into(&p.Peak.Bytes, rate),
		"mtu":      into(&p.MTU, burst),
		"minburst": into(&p.MTU, burst),
	}.rate(&p.Rate))
	if err != nil {
		return err
	}
	return tbfComplete(p)
}

// burst reads a size that may have a cell after a slash, which has no effect.
func burst(word string) (uint64, error) {
	for i := range word {
		if word[i] == '/' {
			word = word[:i]
			break
		}
	}
	return size(word)
}

// tbfComplete sees that what belongs together is there, and turns a latency into the
// limit.
func tbfComplete(p *qdisc.TBF) error {
	switch {
	case p.Rate.Bytes == 0:
		return errors.New(`tbf: the "rate" parameter is required`)
	case p.Burst == 0:
		return errors.New(`tbf: the "burst" parameter is required`)
	case p.Peak.Bytes != 0 && p.MTU == 0:
		return errors.New(`tbf: "mtu" is required, if "peakrate" is requested`)
	case p.Limit != 0 && p.Latency != 0:
		return errors.New(`tbf: one of "limit" and "latency", not both`)
	case p.Limit == 0 && p.Latency == 0:
		return errors.New(`tbf: either "limit" or "latency" is required`)
	}
	if p.Peak.Bytes != 0 {
		p.Peak.Overhead, p.Peak.MPU, p.Peak.ATM = p.Rate.Overhead, p.Rate.MPU, p.Rate.ATM
	}
	if p.Latency == 0 {
		return nil
	}
	limit := float64(p.Rate.Bytes)*float64(p.Latency)/1e9 + float64(p.Burst)
	if p.Peak.Bytes != 0 {
		limit = min(limit, float64(p.Peak.Bytes)*float64(p.Latency)/1e9+float64(p.MTU))
	}
	p.Limit = int64(limit)
	return nil
}

func htb(q *qdisc.Qdisc, w *words) error {
	p := &qdisc.HTB{}
	q.HTB = p
	return each(w, q.Kind, fields{
		"default":     into(&p.Default, hexMinor),
		"r2q":         into(&p.R2Q, number[uint32]),
		"direct_qlen": into(&p.DirectFrames, number[int]),
		"debug":       refuse("not supported"),
		"offload":     refuse("there is no hardware"),
	})
}

// hexMinor reads a minor number, which tc takes for hexadecimal with and without 0x.
func hexMinor(word string) (uint32, error) {
	if len(word) > 2 && (word[:2] == "0x" || word[:2] == "0X") {
		word = word[2:]
	}
	x, err := hex16(word)
	return uint32(x), err
}

// htbMTU is what tc adds to the burst of a class that has none.
const htbMTU = 1600

func htbClass(c *qdisc.Class, w *words) error {
	p := &qdisc.HTBClass{}
	c.HTB = p
	err := each(w, "htb", fields{
		"rate":      into(&p.Rate.Bytes, rate),
		"ceil":      into(&p.Ceil.Bytes, rate),
		"burst":     into(&p.Burst, burst),
		"buffer":    into(&p.Burst, burst),
		"maxburst":  into(&p.Burst, burst),
		"cburst":    into(&p.CBurst, burst),
		"cbuffer":   into(&p.CBurst, burst),
		"cmaxburst": into(&p.CBurst, burst),
		"prio":      into(&p.Prio, number[uint32]),
		"quantum":   into(&p.Quantum, size32),
		"mtu":       func(w *words, word string) error { _, err := value(w, word, size); return err },
	}.rate(&p.Rate))
	if err != nil {
		return err
	}
	if p.Rate.Bytes == 0 {
		return errors.New(`htb: the "rate" parameter is required`)
	}
	ceil := p.Rate
	if p.Ceil.Bytes != 0 {
		ceil.Bytes = p.Ceil.Bytes
	}
	p.Ceil = ceil
	p.Burst, p.CBurst = orBurst(p.Burst, p.Rate.Bytes), orBurst(p.CBurst, p.Ceil.Bytes)
	return nil
}

// orBurst is a burst, or if that was not given, what the rate brings in 4 ms: so late
// may a worker be whose CPU somebody else is on. tc's own default is 1600 bytes at any
// rate, which a fast class could only keep up with by a wake for each packet.
func orBurst(given, rate uint64) uint64 {
	if given != 0 {
		return given
	}
	return max(rate/250, htbMTU)
}

func drrClass(p *qdisc.DRRClass, w *words) error {
	return each(w, "drr", fields{"quantum": into(&p.Quantum, size32)})
}

func codel(q *qdisc.Qdisc, w *words) error {
	p := &qdisc.Codel{}
	q.Codel = p
	return each(w, q.Kind, fields{
		"limit":        into(&p.Limit, number[int]),
		"target":       into(&p.Target, duration),
		"interval":     into(&p.Interval, duration),
		"ce_threshold": into(&p.CEThreshold, duration),
		"ecn":          flag(&p.ECN, true),
		"noecn":        flag(&p.ECN, false),
	})
}

func fqCodel(q *qdisc.Qdisc, w *words) error {
	p := &qdisc.FQCodel{}
	q.FQCodel = p
	return each(w, q.Kind, fields{
		"limit":                 into(&p.Limit, number[int]),
		"flows":                 into(&p.Flows, number[int]),
		"quantum":               into(&p.Quantum, number[uint32]),
		"target":                into(&p.Target, duration),
		"interval":              into(&p.Interval, duration),
		"ce_threshold":          into(&p.CEThreshold, duration),
		"memory_limit":          into(&p.MemoryLimit, sizeInt),
		"drop_batch":            into(&p.DropBatch, number[int]),
		"ecn":                   flag(&p.NoECN, false),
		"noecn":                 flag(&p.NoECN, true),
		"ce_threshold_selector": func(w *words, _ string) error { return selector(w, p) },
	})
}

func selector(w *words, p *qdisc.FQCodel) error {
	_, err := value(w, "ce_threshold_selector", func(word string) (int, error) {
		n, err := fmt.Sscanf(word, "%v/%v", &p.CESelector, &p.CEMask)
		if err != nil || n != 2 {
			return 0, errors.New("want a value and a mask, like 0x01/0x3")
		}
		return 0, nil
	})
	return err
}

func fq(q *qdisc.Qdisc, w *words) error {
	p := &qdisc.FQ{}
	q.FQ = p
	return each(w, q.Kind, fields{
		"limit":              into(&p.Limit, number[int]),
		"flow_limit":         into(&p.FlowLimit, number[int]),
		"buckets":            into(&p.Buckets, number[int]),
		"maxrate":            into(&p.MaxRate, rate),
		"low_rate_threshold": into(&p.LowRate, rate),
		"quantum":            into(&p.Quantum, size32),
		"initial_quantum":    into(&p.InitialQuantum, size32),
		"refill_delay":       into(&p.RefillDelay, duration),
		"timer_slack":        into(&p.TimerSlack, nanos),
		"horizon":            into(&p.Horizon, duration),
		"ce_threshold":       into(&p.CEThreshold, duration),
		"orphan_mask":        into(&p.OrphanMask, number[uint32]),
		"horizon_cap":        flag(&p.HorizonCap, true),
		"horizon_drop":       flag(&p.HorizonCap, false),
		"pacing":             flag(&p.NoPacing, false),
		"nopacing":           flag(&p.NoPacing, true),
		"defrate":            refuse("not supported, use maxrate"),
	})
}

func sfq(q *qdisc.Qdisc, w *words) error {
	p := &qdisc.SFQ{}
	q.SFQ = p
	return each(w, q.Kind, fields{
		"limit":        into(&p.Limit, number[int]),
		"depth":        into(&p.Depth, number[int]),
		"divisor":      into(&p.Divisor, number[int]),
		"quantum":      into(&p.Quantum, size32),
		"perturb":      into(&p.Perturb, number[int]),
		"headdrop":     flag(&p.HeadDrop, true),
		"redflowlimit": refuse("RED is not supported"),
		"ewma":         refuse("RED is not supported"),
		"min":          refuse("RED is not supported"),
		"max":          refuse("RED is not supported"),
		"avpkt":        refuse("RED is not supported"),
		"burst":        refuse("RED is not supported"),
		"probability":  refuse("RED is not supported"),
		"ecn":          refuse("RED is not supported"),
		"harddrop":     refuse("RED is not supported"),
	})
}
