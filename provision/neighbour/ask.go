package neighbour

import (
	"context"
	"slices"
	"time"

	"github.com/usher-agent/usher/provision"
)

// Before another MAC than the ERP's is reported, the ERP's is asked whether it
// still has the address: anybody on the wire can claim one, and be confirmed by
// the kernel for answering, but nobody can keep its owner from answering too. Questions
// are spread over the waiting time and never hold up the watch.

const (
	// questions are asked in vain before the ERP's MAC counts as silent.
	questions = 3
	// askWait is how long the answer to one may take. A host on the wire answers within
	// a millisecond, one that sleeps on a radio within a few hundred.
	askWait = time.Second
	// askAgain is how long a MAC that has answered is not asked again.
	askAgain = 5 * time.Minute
	// maxAsking and maxAskingOn bound the questions on their way, in all and on one
	// interface: who claims many addresses on a wire holds up the others there, and no other wire.
	maxAsking   = 64
	maxAskingOn = 8
)

// asked is a question, and for whose sake.
type asked struct {
	Question
	of *candidate
}

// result is what became of a question.
type result struct {
	asked
	answer Answer
	err    error
}

// due returns the reports whose time has come and the questions to ask now, counts what
// became of the others, and sets next.
func (h *neighbourhood) due(now time.Time, o *Options) (reports []provision.MACReport, ask []asked) {
	if h.next.IsZero() || now.Before(h.next) {
		return nil, nil
	}
	h.sweep(now)
	h.next = time.Time{}
	for at, c := range h.pending {
		if c.asking {
			continue // its result wakes
		}
		if t := c.due(o.MinTime); now.Before(t) {
			h.soon(t)
			continue
		}
		outcome, b := h.judge(at, c.mac, now, o)
		switch {
		case outcome != Reported:
			delete(h.pending, at)
			h.count(outcome)
		case c.known != b.MAC || !c.settled: // the ERP's may be another one by now
			if c.known != b.MAC {
				c.known, c.silent, c.settled = b.MAC, 0, false
			}
			if t := c.due(o.MinTime); now.Before(t) {
				h.soon(t)
				continue
			}
			ask = append(ask, asked{Question{Interface: at.iface, IP: at.ip, Known: b.MAC}, c})
		default:
			delete(h.pending, at)
			h.reported[at.ip] = now
			h.reportedBy(at.ip, c.mac)
			reports = append(reports, provision.MACReport{IP: at.ip, MAC: c.mac, Subscriber: b.Subscriber, At: now,
				Replaces: provision.Replaced{MAC: c.known, Known: true},
				ARP:      provision.ARPSighting{Interface: at.iface, Silent: c.known, Asked: uint8(c.silent)}})
		}
	}
	return reports, h.admit(ask, o.MinTime)
}

// admit returns those of the questions for which there is room, the oldest first. The others
// have their turn when a result comes.
func (h *neighbourhood) admit(ask []asked, minTime time.Duration) []asked {
	slices.SortFunc(ask, func(a, b asked) int { return a.of.due(minTime).Compare(b.of.due(minTime)) })
	return slices.DeleteFunc(ask, func(a asked) bool {
		if h.asking >= maxAsking || h.askingOn[a.Interface] >= maxAskingOn {
			return true
		}
		h.asking++
		h.askingOn[a.Interface]++
		a.of.asking = true
		return false
	})
}

// due returns when something is to be done about a candidate: the next question, or
// the report. Questions begin at once, and the last one ends with the waiting time
// if that is long enough.
func (c *candidate) due(minTime time.Duration) time.Time {
	switch {
	case c.settled:
		return c.since.Add(minTime)
	case c.known.IsZero():
		// The first question, of which it is not known yet whether there is a MAC to ask.
		return c.since
	}
	return c.since.Add(time.Duration(c.silent) * max(askWait, (minTime-askWait)/(questions-1)))
}

// heard takes what became of a question.
func (h *neighbourhood) heard(r result, now time.Time) {
	h.asking--
	if h.askingOn[r.Interface]--; h.askingOn[r.Interface] == 0 {
		delete(h.askingOn, r.Interface)
	}
	h.soon(now) // there is room for another
	c, at := r.of, place{r.IP, r.Interface}
	c.asking = false
	if r.err == nil && r.answer == Answers {
		h.answered[r.IP] = answered{r.Known, now}
	}
	if h.pending[at] != c {
		return // contradicted meanwhile
	}
	switch {
	case r.err != nil:
		delete(h.pending, at) // until the kernel tells of it again
		h.count(Unasked)
	case r.answer == Answers:
		delete(h.pending, at)
		h.count(StillAnswers)
	case r.answer == Astray:
		delete(h.pending, at)
		h.count(Elsewhere)
	case r.Known.IsZero():
		c.settled = true
	default:
		c.silent++
		c.settled = c.silent >= questions
	}
}

// sweep forgets what counts no more.
func (h *neighbourhood) sweep(now time.Time) {
	if now.Sub(h.swept) < reportAgain {
		return
	}
	h.swept = now
	for ip, at := range h.reported {
		if now.Sub(at) >= reportAgain {
			delete(h.reported, ip)
		}
	}
	for ip, a := range h.answered {
		if now.Sub(a.at) >= askAgain {
			delete(h.answered, ip)
		}
	}
}

// ask asks one question and hands its result to Run.
func (w *Watcher) ask(ctx context.Context, a asked) {
	limited, cancel := context.WithTimeout(ctx, askWait)
	defer cancel()
	answer, err := w.kernel.Ask(limited, a.Question)
	if ctx.Err() != nil {
		return
	}
	w.mu.Lock()
	w.results = append(w.results, result{a, answer, err})
	told := w.cannot
	w.cannot = err != nil
	w.mu.Unlock()
	switch {
	case err != nil && !told:
		w.log.Warn("MACs that the ERP knows cannot be asked by ARP whether they still have their address; no other MAC is reported meanwhile",
			"interface", a.Interface, "ip", a.IP, "error", err)
	case err == nil && told:
		w.log.Info("MACs that the ERP knows can be asked again", "interface", a.Interface)
	}
	w.poke()
}
