package agent

import (
	"errors"
	"time"

	"github.com/usher-agent/usher/provision"
	"github.com/usher-agent/usher/provision/audit"
	"github.com/usher-agent/usher/provision/lease"
)

// closeAudit writes the records that still wait. One that is lost fails no stop.
func (a *Agent) closeAudit() error {
	if err := a.audit.Close(); err != nil {
		a.log.Error("last audit records could not be written", "error", err)
	}
	return nil
}

// auditReport records that the ERP was told a MAC. The evidence is what the lease
// of that client still says, or how ARP showed it.
func (a *Agent) auditReport(r provision.MACReport, attempts int, err error) {
	rec := audit.Record{
		Act: audit.SetMAC, Who: audit.Who{By: audit.ByAgent}, Result: audit.Done,
		What: audit.What{Customer: r.Subscriber, IP: r.IP, MAC: r.MAC, Attempts: attempts},
	}
	if r.ARP != (provision.ARPSighting{}) {
		rec.Who.Evidence = &audit.Evidence{Interface: r.ARP.Interface, ARP: &audit.ARP{Seen: r.At.UTC(), Silent: r.ARP.Silent, Asked: r.ARP.Asked}}
	} else if l, ok := a.leases.Get(r.IP); ok && l.MAC == r.MAC {
		rec.Who.Evidence = evidenceOf(&l)
	}
	if err != nil {
		rec.Result, rec.Error = audit.Failed, err.Error()
	}
	if errors.Is(err, provision.ErrRefused) {
		rec.Result = audit.Refused
	}
	a.audit.Add(rec)
}

func evidenceOf(l *lease.Record) *audit.Evidence {
	return &audit.Evidence{Device: l.Device, Port: l.Port, Interface: l.Interface, Relay: l.GIAddr, Option82: l.Option82.String(), Renewed: l.Renewed.UTC()}
}

// auditReload records that the configuration was read again.
func (a *Agent) auditReload(err error) {
	rec := audit.Record{
		Time: time.Now(), Act: audit.ConfigReload, Who: audit.Who{By: audit.BySignal}, Result: audit.Done, DryRun: a.dryRun,
		What: audit.What{Path: a.path, Hash: a.status.Load().Hash},
	}
	if err != nil {
		rec.Result, rec.Error = audit.Refused, err.Error()
	}
	a.audit.Add(rec)
}
