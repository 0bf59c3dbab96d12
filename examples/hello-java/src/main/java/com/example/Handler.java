package com.example;

import com.amazonaws.services.lambda.runtime.Context;
import com.amazonaws.services.lambda.runtime.RequestHandler;
import java.io.IOException;
import java.io.StringReader;
import java.util.Map;
import java.util.TreeMap;
import org.apache.commons.csv.CSVFormat;
import org.apache.commons.csv.CSVRecord;

/** Sums up a CSV file's column by another: a typed handler that knows nothing of davit. */
public class Handler implements RequestHandler<Handler.Table, Map<String, Object>> {
    /** The event; AWS's serialisation fills in what has a public name. */
    public static class Table {
        public String csv;
        public String by;
        public String of;
    }

    @Override
    public Map<String, Object> handleRequest(Table table, Context context) {
        if (table.csv == null) {
            throw new IllegalArgumentException("the event needs csv");
        }
        Map<String, Double> sums = new TreeMap<>();
        CSVFormat format = CSVFormat.DEFAULT.builder().setHeader().setSkipHeaderRecord(true).get();
        try (var records = format.parse(new StringReader(table.csv))) {
            for (CSVRecord record : records) {
                sums.merge(record.get(table.by), Double.valueOf(record.get(table.of)), Double::sum);
            }
        } catch (IOException impossible) {
            throw new IllegalStateException(impossible);
        }
        context.getLogger().log("summed up " + sums.size() + " groups\n");
        return Map.of("sums", sums, "request_id", context.getAwsRequestId());
    }
}
