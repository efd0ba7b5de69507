// SPDX-License-Identifier: Apache-2.0

package tc

import (
	"errors"
	"fmt"

	"sluice/qdisc"
)

// each reads keywords with their values until the end; one that known does not
// know is an error.
func each(w *words, kind string, known func(word string) (bool, error)) error {
	for !w.end() {
		word := w.next()
		ok, err := known(word)
		if err != nil {
			return fmt.Errorf("%s: %w", kind, err)
		}
		if !ok {
			return fmt.Errorf("%s: what is %q?", kind, word)
		}
	}
	return nil
}

// options reads the options of a kind of discipline.
func options(q *qdisc.Qdisc, w *words) error {
	switch q.Kind {
	case "pfifo":
		return fifo(q, w, number[int64])
	case "bfifo":
		return fifo(q, w, sizeInt)
	case "pfifo_fast", "ingress":
		return each(w, q.Kind, func(string) (bool, error) { return false, nil })
	case "prio":
		return prio(q, w)
	case "tbf":
		return tbf(q, w)
	case "htb":
		return htb(q, w)
	case "drr":
		return each(w, q.Kind, func(string) (bool, error) { return false, nil })
	case "codel":
		return codel(q, w)
	case "fq_codel":
		return fqCodel(q, w)
	case "fq":
		return fq(q, w)
	case "sfq":
		return sfq(q, w)
	case "netem":
		return netem(q, w)
	}
	return fmt.Errorf("kind: %q is not supported, want pfifo, bfifo, pfifo_fast, prio, tbf, htb, drr, codel, fq_codel, fq, sfq, netem or ingress", q.Kind)
}

func fifo(q *qdisc.Qdisc, w *words, read func(string) (int64, error)) error {
	return each(w, q.Kind, func(word string) (bool, error) {
		if word != "limit" {
			return false, nil
		}
		q.FIFO = &qdisc.FIFO{}
		return true, set(w, word, &q.FIFO.Limit, read)
	})
}

func prio(q *qdisc.Qdisc, w *words) error {
	p := &qdisc.Prio{Bands: 3}
	q.Prio = p
	return each(w, q.Kind, func(word string) (bool, error) {
		switch word {
		case "bands":
			return true, set(w, word, &p.Bands, number[int])
		case "priomap":
			p.Map = nil
			for range 16 {
				if x, err := number[uint8](w.peek()); err == nil {
					p.Map = append(p.Map, x)
					w.next()
				}
			}
			if len(p.Map) == 0 {
				return true, errors.New("priomap: want up to 16 bands")
			}
			return true, nil
		}
		return false, nil
	})
}

// rateWord reads what rates have in common beside their own word.
func rateWord(w *words, word string, r *qdisc.Rate) (bool, error) {
	switch word {
	case "overhead":
		return true, set(w, word, &r.Overhead, signed)
	case "mpu":
		return true, set(w, word, &r.MPU, size32)
	case "linklayer":
		return true, set(w, word, &r.ATM, linkLayer)
	}
	return false, nil
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
	err := each(w, q.Kind, func(word string) (bool, error) {
		switch word {
		case "rate":
			return true, set(w, word, &p.Rate.Bytes, rate)
		case "burst", "buffer", "maxburst":
			return true, set(w, word, &p.Burst, burst)
		case "limit":
			return true, set(w, word, &p.Limit, sizeInt)
		case "latency":
			return true, set(w, word, &p.Latency, duration)
		case "peakrate":
			return true, set(w, word, &p.Peak.Bytes, rate)
		case "mtu", "minburst":
			return true, set(w, word, &p.MTU, burst)
		}
		return rateWord(w, word, &p.Rate)
	})
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
	return each(w, q.Kind, func(word string) (bool, error) {
		switch word {
		case "default":
			return true, set(w, word, &p.Default, hexMinor)
		case "r2q":
			return true, set(w, word, &p.R2Q, number[uint32])
		case "direct_qlen":
			return true, set(w, word, &p.DirectFrames, number[int])
		case "debug":
			return true, errors.New("debug: not supported")
		case "offload":
			return true, errors.New("offload: there is no hardware")
		}
		return false, nil
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
	err := each(w, "htb", func(word string) (bool, error) {
		switch word {
		case "rate":
			return true, set(w, word, &p.Rate.Bytes, rate)
		case "ceil":
			return true, set(w, word, &p.Ceil.Bytes, rate)
		case "burst", "buffer", "maxburst":
			return true, set(w, word, &p.Burst, burst)
		case "cburst", "cbuffer", "cmaxburst":
			return true, set(w, word, &p.CBurst, burst)
		case "prio":
			return true, set(w, word, &p.Prio, number[uint32])
		case "quantum":
			return true, set(w, word, &p.Quantum, size32)
		case "mtu":
			_, err := value(w, word, size)
			return true, err
		}
		return rateWord(w, word, &p.Rate)
	})
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

// orBurst is a burst, or if that was not given, what the rate brings in a
// millisecond. tc's own default is 1600 bytes at any rate, which a fast class could
// only keep up with by a wake for each packet.
func orBurst(given, rate uint64) uint64 {
	if given != 0 {
		return given
	}
	return max(rate/1000, htbMTU)
}

func drrClass(p *qdisc.DRRClass, w *words) error {
	return each(w, "drr", func(word string) (bool, error) {
		if word != "quantum" {
			return false, nil
		}
		return true, set(w, word, &p.Quantum, size32)
	})
}

func codel(q *qdisc.Qdisc, w *words) error {
	p := &qdisc.Codel{}
	q.Codel = p
	return each(w, q.Kind, func(word string) (bool, error) {
		switch word {
		case "limit":
			return true, set(w, word, &p.Limit, number[int])
		case "target":
			return true, set(w, word, &p.Target, duration)
		case "interval":
			return true, set(w, word, &p.Interval, duration)
		case "ce_threshold":
			return true, set(w, word, &p.CEThreshold, duration)
		case "ecn", "noecn":
			p.ECN = word == "ecn"
			return true, nil
		}
		return false, nil
	})
}

func fqCodel(q *qdisc.Qdisc, w *words) error {
	p := &qdisc.FQCodel{}
	q.FQCodel = p
	return each(w, q.Kind, func(word string) (bool, error) {
		switch word {
		case "limit":
			return true, set(w, word, &p.Limit, number[int])
		case "flows":
			return true, set(w, word, &p.Flows, number[int])
		case "quantum":
			return true, set(w, word, &p.Quantum, number[uint32])
		case "target":
			return true, set(w, word, &p.Target, duration)
		case "interval":
			return true, set(w, word, &p.Interval, duration)
		case "ce_threshold":
			return true, set(w, word, &p.CEThreshold, duration)
		case "memory_limit":
			return true, set(w, word, &p.MemoryLimit, sizeInt)
		case "drop_batch":
			return true, set(w, word, &p.DropBatch, number[int])
		case "ecn", "noecn":
			p.NoECN = word == "noecn"
			return true, nil
		case "ce_threshold_selector":
			return true, selector(w, p)
		}
		return false, nil
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
	return each(w, q.Kind, func(word string) (bool, error) {
		switch word {
		case "limit":
			return true, set(w, word, &p.Limit, number[int])
		case "flow_limit":
			return true, set(w, word, &p.FlowLimit, number[int])
		case "buckets":
			return true, set(w, word, &p.Buckets, number[int])
		case "maxrate":
			return true, set(w, word, &p.MaxRate, rate)
		case "low_rate_threshold":
			return true, set(w, word, &p.LowRate, rate)
		case "quantum":
			return true, set(w, word, &p.Quantum, size32)
		case "initial_quantum":
			return true, set(w, word, &p.InitialQuantum, size32)
		case "refill_delay":
			return true, set(w, word, &p.RefillDelay, duration)
		case "timer_slack":
			return true, set(w, word, &p.TimerSlack, nanos)
		case "horizon":
			return true, set(w, word, &p.Horizon, duration)
		case "ce_threshold":
			return true, set(w, word, &p.CEThreshold, duration)
		case "orphan_mask":
			return true, set(w, word, &p.OrphanMask, number[uint32])
		case "horizon_cap", "horizon_drop":
			p.HorizonCap = word == "horizon_cap"
			return true, nil
		case "pacing", "nopacing":
			p.NoPacing = word == "nopacing"
			return true, nil
		case "defrate":
			return true, errors.New("defrate: not supported, use maxrate")
		}
		return false, nil
	})
}

func sfq(q *qdisc.Qdisc, w *words) error {
	p := &qdisc.SFQ{}
	q.SFQ = p
	return each(w, q.Kind, func(word string) (bool, error) {
		switch word {
		case "limit":
			return true, set(w, word, &p.Limit, number[int])
		case "depth":
			return true, set(w, word, &p.Depth, number[int])
		case "divisor":
			return true, set(w, word, &p.Divisor, number[int])
		case "quantum":
			return true, set(w, word, &p.Quantum, size32)
		case "perturb":
			return true, set(w, word, &p.Perturb, number[int])
		case "headdrop":
			return true, nil
		case "redflowlimit", "ewma", "min", "max", "avpkt", "burst", "probability", "ecn", "harddrop":
			return true, fmt.Errorf("%s: RED is not supported", word)
		}
		return false, nil
	})
}
