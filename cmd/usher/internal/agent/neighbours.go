package agent

import (
	"fmt"

	"github.com/usher-agent/usher/config"
	"github.com/usher-agent/usher/provision"
	"github.com/usher-agent/usher/provision/link"
	"github.com/usher-agent/usher/provision/neighbour"
)

func neighbourOptions(cfg *config.Config) neighbour.Options {
	o := cfg.Neighbours.Options
	o.Serves = provision.Patterns(cfg.Neighbours.Interfaces).Match
	o.RefuseChange = cfg.RefusesMACChange()
	o.VLANOf = vlanOf(cfg)
	return o
}

// openNeighbours makes the watch for MACs of subscribers without DHCP, if the
// configuration wants one.
func (a *Agent) openNeighbours(cfg *config.Config) error {
	if !cfg.Neighbours.Enabled {
		return nil
	}
	k, err := link.OpenNeighbours(0)
	if err != nil {
		return fmt.Errorf("neighbours: %w", err)
	}
	a.teardown.push("neighbours", k.Close)
	a.neighbours = neighbour.New(neighbourOptions(cfg), k, neighbour.Deps{
		Snapshot: a.syncer.Current,
		Leases:   a.leases,
		Report:   a.outbox.Put,
		Count:    a.metrics.Neighbour,
	}, a.log)
	return nil
}

// reloadNeighbours takes over what a running watch can.
func (a *Agent) reloadNeighbours(cfg *config.Config) {
	if a.neighbours != nil {
		a.neighbours.Reconfigure(neighbourOptions(cfg))
	}
}
