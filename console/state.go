package console

import (
	"fmt"
	"strings"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/usher-agent/usher/dhcpd/outcome"
	"github.com/usher-agent/usher/provision/lease"
	"github.com/usher-agent/usher/provision/outbox"
)

// stateListed is how many of the reasons and files a status lists; all are counted.
const stateListed = 10

// StateStatus is how the disk of the leases and MAC reports is.
type StateStatus struct {
	lease.Health
	// Text says what is wrong and what follows, Advice what an operator may do; both are empty where nothing is.
	Text   string `json:"text,omitempty"`
	Advice string `json:"advice,omitempty"`
	// Lost says how much of what was on disk cannot be read, and LostAdvice what to do about it.
	Lost       string `json:"lost,omitempty"`
	LostAdvice string `json:"lost_advice,omitempty"`
	// Growing says that the log cannot be made shorter, and GrowingAdvice what to do about it.
	Growing       string `json:"growing,omitempty"`
	GrowingAdvice string `json:"growing_advice,omitempty"`
}

// stateStatus is nil where leases are not kept.
func (d *Deps) stateStatus() *StateStatus {
	if d.State == nil {
		return nil
	}
	st := &StateStatus{Health: d.State()}
	if st.Failing() {
		st.Text, st.Advice = d.stateText(st.Health), wayOut(st.Error, "second")
	}
	if n := len(st.PutAside); st.Unread > 0 || n > 0 {
		st.Lost = fmt.Sprintf("%s on disk could not be read.", count(st.Unread, "record"))
		st.LostAdvice = "Each costs itself alone: its client is served as one without a lease, its report comes again at the next renewal. Look at the disk (dmesg, smartctl)."
		if n > 0 {
			st.LostAdvice += " The damaged files are kept as they were; remove them when nobody wants to look at them."
		}
	}
	st.What, st.PutAside = st.What[:min(len(st.What), stateListed)], st.PutAside[:min(len(st.PutAside), stateListed)]
	if h := st.Log; h.SnapshotError != "" && st.Text == "" {
		st.Growing = fmt.Sprintf("No snapshot of the leases could be written since %s, so their log grows: %s.", stamp(h.SnapshotFails), h.SnapshotError)
		st.GrowingAdvice = wayOut(h.SnapshotError, "minute")
	}
	return st
}

// stateText says that nothing gets on disk, why, and what follows.
func (d *Deps) stateText(h lease.Health) string {
	text := fmt.Sprintf("Leases and MAC reports cannot be written to %s since %s: %s.", h.Path, stamp(h.Since), h.Error)
	if d.hasPools() {
		text += " Pools lease nothing until they can."
	}
	return text + " Bound addresses are served from memory; a restart would forget what is new of them."
}

func (d *Deps) hasPools() bool { return d.Pools != nil && len(d.Pools.Pools()) > 0 }

// wayOut says what may help against the error of a disk, on which the agent tries again so often.
func wayOut(text, often string) string {
	again := " The agent tries again each " + often + " and needs no restart."
	is := func(errs ...error) bool {
		for _, err := range errs {
			if strings.Contains(text, err.Error()) {
				return true
			}
		}
		return false
	}
	switch {
	case is(syscall.EACCES, syscall.EPERM):
		return "Give the directory and its files to the user that the agent runs as (ls -ld, chown -R)." + again
	case is(syscall.EROFS):
		return "Mount the file system for writing again, and look why it is not: after an error of the disk the kernel does that (dmesg). Under systemd ReadWritePaths= and StateDirectory= count." + again
	case is(syscall.ENOSPC, syscall.EDQUOT):
		return "Make room on the file system: df -h, df -i, du." + again
	case is(syscall.ENOTDIR, syscall.EEXIST):
		return "Something else stands in place of the directory: move it away." + again
	case strings.Contains(text, "not a regular file"): // of provision/wal and provision/statedb
		return "Something else stands in place of the file: move it away." + again
	case is(syscall.ENOENT), strings.Contains(text, "taken away"): // the latter is wal.ErrGone
		return "The directory was taken away. Make state_dir again if it is gone, for the user that the agent runs as; everything that the agent knows is then written again." + again
	case text == lease.NoAnswer:
		return "The disk hangs: look at dmesg, and at what else uses it (iostat, /proc/pressure/io); of a disk on the network, at its server. What waits is written when it answers, and the agent needs no restart."
	case is(syscall.EIO):
		return "The disk fails: look at dmesg and smartctl, and move state_dir to another one." + again
	}
	return "Look at the disk of state_dir: its free space, its owner, the kernel's log (df, ls -ld, dmesg)." + again
}

// warnings tell what is wrong although the agent does its job as far as it can.
func (d *Deps) warnings() []string {
	all := []string{}
	if st := d.stateStatus(); st != nil {
		if st.Text != "" {
			all = append(all, st.Text+" "+st.Advice)
		}
		if st.Lost != "" {
			all = append(all, st.Lost+" "+st.LostAdvice)
		}
		if st.Growing != "" {
			all = append(all, st.Growing+" "+st.GrowingAdvice)
		}
	}
	sync := d.Syncer.Status()
	for _, f := range d.files(&sync) {
		all = append(all, f.Text+" "+f.Advice)
	}
	return append(all, degraded(sync.Sources)...)
}

// diskSentences name the disk's error to whom it concerns.
func (x *explainer) diskSentences() []string {
	st := x.d.stateStatus()
	if st == nil || st.Text == "" {
		return nil
	}
	concerned := x.x.Would != nil && x.x.Would.Outcome == outcome.PoolOffer.String()
	if len(x.x.Events) > 0 {
		newest := x.x.Events[0].Outcome
		concerned = concerned || newest == outcome.PoolNotDurable.String() || newest == outcome.AckBeforeCommit.String()
	}
	if !concerned {
		return nil
	}
	return []string{st.Text, st.Advice}
}

// WatchState makes a scrape look at the disk of the leases, and at the MAC reports that wait for it.
func (m *Metrics) WatchState(health func() lease.Health, reports func() outbox.Status) {
	m.state.Store(&stateSource{health, reports})
}

type stateSource struct {
	health  func() lease.Health
	reports func() outbox.Status
}

type stateCollector struct {
	m                                                                             *Metrics
	failing, seconds, unread, aside, unwritten, files, bytes, snap, snaps, halted *prometheus.Desc
}

func newStateCollector(m *Metrics) *stateCollector {
	desc := func(name, help string) *prometheus.Desc { return prometheus.NewDesc(name, help, nil, nil) }
	return &stateCollector{
		m:         m,
		failing:   desc("usher_state_failing", "1 while leases and MAC reports cannot be written to disk."),
		seconds:   desc("usher_state_failing_seconds", "How long they could not be; 0 while they can."),
		unread:    desc("usher_state_unread_records", "Records that were on disk and could not be read, since the start."),
		aside:     desc("usher_state_damaged_files", "Files with such records that were put aside, since the start."),
		unwritten: desc("usher_state_unwritten_reports", "MAC reports, waiting or dealt with, of which the disk does not know yet."),
		files:     desc("usher_state_log_files", "Files of the log of leases and MAC reports."),
		bytes:     desc("usher_state_log_bytes", "Size of the records in them."),
		snap:      desc("usher_state_snapshot_bytes", "Of these, in snapshots."),
		snaps:     desc("usher_state_snapshots", "Snapshots among the files."),
		halted:    desc("usher_state_snapshot_failing", "1 while no snapshot of the log can be written: it grows until one can."),
	}
}

func (c *stateCollector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{c.failing, c.seconds, c.unread, c.aside, c.unwritten, c.files, c.bytes, c.snap, c.snaps, c.halted} {
		ch <- d
	}
}

func (c *stateCollector) Collect(ch chan<- prometheus.Metric) {
	var h lease.Health
	unwritten, seconds := 0, 0.0
	if s := c.m.state.Load(); s != nil {
		h, unwritten = s.health(), s.reports().Unwritten
	}
	if h.Failing() && !h.Since.IsZero() {
		seconds = time.Since(h.Since).Seconds()
	}
	gauge := func(d *prometheus.Desc, v float64) { ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v) }
	gauge(c.failing, boolean(h.Failing()))
	gauge(c.seconds, max(seconds, 0))
	gauge(c.unread, float64(h.Unread))
	gauge(c.aside, float64(len(h.PutAside)))
	gauge(c.unwritten, float64(unwritten))
	gauge(c.files, float64(h.Log.Files))
	gauge(c.bytes, float64(h.Log.Bytes))
	gauge(c.snap, float64(h.Log.Snapshot))
	gauge(c.snaps, float64(h.Log.Snapshots))
	gauge(c.halted, boolean(h.Log.SnapshotError != ""))
}
