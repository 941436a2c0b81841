// Package emulator stands in for the UserSide ERP: it serves the same HTTP API
// (/api.php) from an embedded store, so that the agent can be demonstrated,
// developed and tested without the real thing.
//
// What is served follows the API page of the project: the envelope generations
// are Profiles, the five forms that the undocumented bindings answer may have
// are Shapes, and every looseness that real servers show is a switch in Quirks.
// Where the vendor publishes nothing (texts of errors, the status of most of
// them, the rows of get_mac_history), the emulator does what section 9 of that
// page proposes; comments at the actions say so.
//
// # State
//
// Customers, devices and links live in memory and answer from there. With
// Options.Path every change is written through to a bbolt file in a transaction
// of its own before the caller hears of success, so what an API client saw
// succeed survives the death of the process. A file that already holds data
// is used as it is and the generator does not run.
//
// # Listeners
//
// An Emulator is the http.Handler of /api.php. AdminHandler is a second handler
// for a second listener: a page and a small JSON API for the person at the
// controls. API keys are never shown by either, nor logged.
package emulator
