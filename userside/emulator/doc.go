// Package emulator stands in for the UserSide ERP: it serves the same HTTP API
// (/api.php) from an embedded store, so that the agent can be demonstrated,
// developed and tested without the real thing.
//
// What is served follows the API page of the project: the whole section
// cat=customer, and of the neighbouring sections what an agent or an engineer
// looks up. The envelope generations are Profiles, the forms that the
// undocumented bindings answer may have are Shapes, and every looseness that
// real servers show is a switch in Quirks; all three may be changed while it
// runs. Where the vendor publishes nothing (texts of errors, the status of most
// of them, the rows of get_mac_history, keys of answers with one value), the
// emulator does what section 9 of that page proposes; comments at the actions
// say so.
//
// # Versions
//
// A Profile is a server of one Version. Actions and filters that are newer, or
// gone, are not known to it: an unknown action is refused, an unknown parameter
// overlooked, as PHP does. Profile316 has the names of before 3.16dev2 alone:
// subcat, usercode and operator_id.
//
//	v316    3.16dev1  old envelope and old names
//	legacy  3.16.30   old envelope, old and new names
//	modern  3.19.5    new envelope, errors with an HTTP status
//	v321    3.21.2    changes by POST only; add wants billing_id and billing_customer_id
//
// # State
//
// Customers, devices and links live in memory and answer from there. With
// Options.Path every change is written through to a bbolt file in a transaction
// of its own before the caller hears of success, so what an API client saw
// succeed survives the death of the process. A file that already holds data
// is used as it is and the generator does not run. What an action changes, every
// related look-up shows; the exception is the coordinates of edit, which no
// action of the API tells and only the admin API shows. Tariffs and services
// are fixed lists; marks and employees are any numbers; there is no
// directory of addresses, so each ten houses are one address unit. Passwords of
// the personal area are kept as salted hashes and shown nowhere.
//
// # Changes
//
// Every change is told to the readers of Changes, which stands for the hooks
// inside the ERP, unless the call had skip_internal_api=1. With Options.HookURL
// the agent's endpoint of hints is called as the PHP handler would call it.
//
// # Listeners
//
// An Emulator is the http.Handler of /api.php. AdminHandler is a second handler
// for a second listener: a page and a small JSON API for the person at the
// controls. API keys are never shown by either, nor logged.
package emulator
