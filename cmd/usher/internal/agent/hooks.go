package agent

import (
	"github.com/usher-agent/usher/config"
	"github.com/usher-agent/usher/console"
)

// openHooks makes the endpoint of hints, if the configuration has one.
func (a *Agent) openHooks(cfg *config.Config) {
	if cfg.Hooks.Listen.IsValid() {
		a.hooks = console.NewHooks(cfg.Hooks, a.syncer.Hint, a.metrics.Hint, a.log)
	}
}
