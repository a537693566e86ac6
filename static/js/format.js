// Numbers and times as people read them. Times are New York's, numbers have a true minus sign.

export const NOTHING = "–";
const NEW_YORK = "America/New_York";

const number = (options) => {
  const format = new Intl.NumberFormat("en-US", options);
  return (value) => (value === null || value === undefined ? NOTHING : format.format(value).replace("-", "−"));
};
const cents = { minimumFractionDigits: 2, maximumFractionDigits: 2 };

export const money = number({ style: "currency", currency: "USD", ...cents });
export const gain = number({ style: "currency", currency: "USD", signDisplay: "exceptZero", ...cents });
export const percent = number({ style: "percent", signDisplay: "exceptZero", ...cents });
export const shares = number({ maximumFractionDigits: 4 });
export const count = number({ maximumFractionDigits: 0 });

const twoDecimals = number(cents);
const fourDecimals = number({ minimumFractionDigits: 4, maximumFractionDigits: 4 });
/** A price: cents, and four decimals below a dollar, where ticks are smaller. */
export const price = (value) => (Math.abs(value ?? 1) < 1 ? fourDecimals(value) : twoDecimals(value));

const moment = (options) => {
  const format = new Intl.DateTimeFormat("en-US", { timeZone: NEW_YORK, ...options });
  return (value) => format.format(value instanceof Date ? value : new Date(value));
};
const clock = { hour: "2-digit", minute: "2-digit", hourCycle: "h23" };
export const minute = moment(clock);
export const second = moment({ ...clock, second: "2-digit" });
const dayParts = moment({ weekday: "short", month: "short", day: "numeric" });
/** A day as "Thu Nov 19". */
export const day = (value) => dayParts(value).replace(",", "");

/** How long, roughly: "40 s", "3 min", "2 h". */
export function shortAge(milliseconds) {
  const age = Math.max(0, Math.round(milliseconds / 1000));
  if (age < 90) return `${age} s`;
  return age < 5400 ? `${Math.round(age / 60)} min` : `${Math.round(age / 3600)} h`;
}

/** A time to come: "under a minute", "12 min", "3 h 05 min", "2 d 4 h". */
export function span(milliseconds) {
  const minutes = Math.max(0, Math.ceil(milliseconds / 60000));
  if (minutes <= 1) return "under a minute";
  if (minutes < 60) return `${minutes} min`;
  if (minutes < 1440) return `${Math.floor(minutes / 60)} h ${String(minutes % 60).padStart(2, "0")} min`;
  return `${Math.floor(minutes / 1440)} d ${Math.floor((minutes % 1440) / 60)} h`;
}

/** Class for a figure that is good above and bad below zero. */
export const trend = (value) => (value > 0 ? "up" : value < 0 ? "down" : "");
