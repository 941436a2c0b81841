package agent

import (
	"context"
	"errors"
	"log/slog"
	"net/netip"
	"sync/atomic"
	"time"

	"github.com/usher-agent/usher/config"
	"github.com/usher-agent/usher/provision"
	"github.com/usher-agent/usher/provision/erp"
	"github.com/usher-agent/usher/provision/statedir"
	"github.com/usher-agent/usher/provision/syncer"
	"github.com/usher-agent/usher/userside"
)

// keepAnswers is how old the file with the ERP's answers may be when something changed.
const keepAnswers = 10 * time.Second

// liveERP is the ERP as configured now: a reload exchanges it whole.
type liveERP struct {
	p      atomic.Pointer[erp.Fetcher]
	memory *erp.Memory // handed from one Fetcher to the next for the same ERP
	url    string      // of memory
	file   string      // where memories are kept over restarts; empty: nowhere
	log    *slog.Logger

	unread, unstored atomic.Pointer[string] // why the file could not be used, and why it cannot be written; nil: it can
}

// answers returns what is wrong with the file: why it could not be used when it was opened, and why it cannot be written.
func (l *liveERP) answers() (unread, unstored string) {
	text := func(p *string) string {
		if p == nil {
			return ""
		}
		return *p
	}
	return text(l.unread.Load()), text(l.unstored.Load())
}

// Fetch implements syncer.Fetcher.
func (l *liveERP) Fetch(ctx context.Context, prev *provision.Snapshot) (provision.Input, error) {
	return l.p.Load().Fetch(ctx, prev)
}

// Fallback implements syncer.FallbackTeller.
func (l *liveERP) Fallback() *syncer.Fallback { return l.p.Load().Fallback() }

// SetMAC implements outbox.Sender.
func (l *liveERP) SetMAC(ctx context.Context, ip netip.Addr, mac provision.MAC) error {
	return l.p.Load().SetMAC(ctx, ip, mac)
}

// row reads what the ERP has for the address of a report now, on the card of its customer, or of the one who has the address by s.
func (l *liveERP) row(ctx context.Context, r provision.MACReport, s *provision.Snapshot) (provision.MAC, error) {
	ids := []provision.SubscriberID{r.Subscriber}
	if line := s.ByIP(r.IP); line != nil {
		ids = append(ids, line.Subscriber)
	}
	return l.p.Load().MACOf(ctx, r.IP, ids...)
}

// ChangeState sets a customer's state in the ERP.
func (l *liveERP) ChangeState(ctx context.Context, id provision.SubscriberID, st provision.State) error {
	return l.p.Load().ChangeState(ctx, id, st)
}

// HasState reports whether a customer is in a state in the ERP now.
func (l *liveERP) HasState(ctx context.Context, id provision.SubscriberID, st provision.State) (bool, error) {
	return l.p.Load().HasState(ctx, id, st)
}

// FetchStates implements syncer.StateFetcher.
func (l *liveERP) FetchStates(ctx context.Context, prev *provision.Snapshot) (syncer.StatesAnswer, error) {
	return l.p.Load().FetchStates(ctx, prev)
}

// FetchStatesEarly implements syncer.EarlyStates.
func (l *liveERP) FetchStatesEarly(ctx context.Context, prev *provision.Snapshot, early func(syncer.StatesAnswer)) (syncer.StatesAnswer, error) {
	return l.p.Load().FetchStatesEarly(ctx, prev, early)
}

// FetchCustomers implements syncer.CustomerFetcher.
func (l *liveERP) FetchCustomers(ctx context.Context, ids []provision.SubscriberID, prev *provision.Snapshot) (syncer.StatesAnswer, error) {
	return l.p.Load().FetchCustomers(ctx, ids, prev)
}

// Moved implements syncer.CustomerFetcher.
func (l *liveERP) Moved(ctx context.Context, ids []provision.SubscriberID, prev *provision.Snapshot) (bool, error) {
	return l.p.Load().Moved(ctx, ids, prev)
}

// pending returns the calls that the ERP has not answered yet.
func (l *liveERP) pending() []userside.Pending { return l.p.Load().Pending() }

// Sources implements syncer.SourceTeller.
func (l *liveERP) Sources() []syncer.SourceStatus { return l.p.Load().Sources() }

// BlockedBy implements syncer.BlockTeller.
func (l *liveERP) BlockedBy(id provision.SubscriberID, st provision.State) syncer.SourceName {
	return l.p.Load().BlockedBy(id, st)
}

// AcceptSource implements syncer.SourceAccepter.
func (l *liveERP) AcceptSource(name syncer.SourceName, fingerprint string) error {
	return l.p.Load().AcceptSource(name, fingerprint)
}

// memoryFor returns what is known of the ERP, also from before the start, and begins anew for another one. An error is a
// *statedir.NewerError.
func (l *liveERP) memoryFor(url string) (*erp.Memory, error) {
	if l.memory != nil && l.url == url {
		return l.memory, nil
	}
	m := erp.NewMemory()
	if l.file != "" {
		var err error
		if m, err = erp.OpenMemory(l.file, url); errors.As(err, new(*statedir.NewerError)) {
			return nil, err
		} else if err != nil {
			l.log.Error("what the ERP said before the start cannot be used", "error", err)
			text := err.Error()
			l.unread.Store(&text)
		}
	}
	l.memory, l.url = m, url
	return m, nil
}

// keep writes what the ERP said of each source to disk every few seconds as it changes, and a last time when ctx ends.
func (l *liveERP) keep(ctx context.Context) error {
	tick := time.NewTicker(keepAnswers)
	defer tick.Stop()
	failing := ""
	for done := false; !done; {
		select {
		case <-ctx.Done():
			done = true
		case <-tick.C:
		}
		text := ""
		if err := l.p.Load().Save(); err != nil {
			text = err.Error()
		}
		if text != "" && text != failing {
			l.log.Error("a restart would not know what the ERP said last", "error", text)
		}
		failing = text
		l.unstored.Store(&text)
	}
	return nil
}

func (a *Agent) newFetcher(cfg *config.Config) (*erp.Fetcher, error) {
	o := ClientOptions(cfg.ERP, "usher/"+a.build.Version, a.log, erpObserver{a.metrics, a.erpDown})
	o.Dialed = a.erpFoundAt(cfg)
	client, err := userside.New(o)
	if err != nil {
		return nil, err
	}
	memory, err := a.erp.memoryFor(cfg.ERP.Client.URL)
	if err != nil {
		return nil, err
	}
	return erp.New(client, FetchOptions(cfg, memory, a.log))
}

// erpObserver counts calls and tells when the ERP turns out to be down.
type erpObserver struct {
	userside.Observer
	down func()
}

// Call implements userside.Observer.
func (o erpObserver) Call(action string, took time.Duration, outcome userside.Outcome) {
	o.Observer.Call(action, took, outcome)
	if outcome == userside.OutcomeUnavailable || outcome == userside.OutcomeTimeout {
		o.down()
	}
}

// erpDown is called for every call that found the ERP down. Calls begin with run,
// when all parts are made.
func (a *Agent) erpDown() { a.enforcer.NoFetchSoon() }
